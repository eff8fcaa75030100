"""Deletes an agent everywhere (invariant 6)."""

from chat_gateway.instances import Instances
from chat_gateway.ports import AgentDeleter, Configs, SessionRemover


class AgentDeletion:
    """Deletes agent configs with their sessions and instances."""

    def __init__(self, agents: AgentDeleter, sessions: SessionRemover, configs: Configs, instances: Instances) -> None:
        self._agents = agents
        self._sessions = sessions
        self._configs = configs
        self._instances = instances

    async def delete(self, project: str, agent_id: str, etag: str = "") -> None:
        """Deletes the agent config, refuses further turns on it everywhere, removes its sessions and instances.

        The config is deleted first: from then on session_svc, which follows config_svc, completes the deletion even if
        this process dies. When this returns, the fence is effective for every gateway; other gateways drop their
        instances when their watch reports it. Raises `ServiceError`: AGENT_NOT_FOUND, ETAG_MISMATCH; `Unavailable` if
        session_svc is unreachable: the agent config is deleted then, and the rest follows by itself.
        """
        uid = await self._agents.delete(project, agent_id, etag)
        self._instances.evict_uid(uid)
        self._configs.forget(project, agent_id, uid)
        await self._sessions.remove_agent(project, agent_id, uid)
