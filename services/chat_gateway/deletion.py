"""Deletes an agent everywhere (invariant 6)."""

from __future__ import annotations

from chat_gateway.agents.instances import Instances
from chat_gateway.clients.stubs import CONFIG_SVC, SESSION_SVC, Stubs
from chat_gateway.ports import Configs
from parley.config.v1 import agent_config_service_pb2
from parley.session.v1 import session_service_pb2
from servicekit.channels import call


class AgentDeletion:
    """Deletes agent configs with all that hangs on them. `timeout` bounds each RPC, in seconds."""

    def __init__(self, stubs: Stubs, configs: Configs, instances: Instances, *, timeout: float) -> None:
        self._stubs = stubs
        self._configs = configs
        self._instances = instances
        self._timeout = timeout

    async def delete(self, project: str, agent_id: str, etag: str = "") -> None:
        """Deletes the agent config, refuses further turns on it everywhere, removes its sessions and instances.

        The config goes first: from then on session_svc, which follows config_svc, does the rest even if this process
        dies here. The fence is up when this returns, on every gateway; other gateways drop their instances when their
        watch tells them. Raises `ServiceError`: AGENT_NOT_FOUND, ETAG_MISMATCH; `Unavailable` when session_svc could
        not be reached, in which case the agent config is deleted and the rest follows by itself.
        """
        response = await call(
            self._stubs.agent_configs.DeleteAgentConfig,
            agent_config_service_pb2.DeleteAgentConfigRequest(project=project, id=agent_id, etag=etag),
            timeout=self._timeout,
            peer=CONFIG_SVC,
        )
        deleted = response.agent_config
        self._instances.evict_uid(deleted.uid)
        self._configs.forget(project, agent_id, deleted.uid)
        await call(
            self._stubs.sessions.DeleteSessions,
            session_service_pb2.DeleteSessionsRequest(
                project=project, agent_id=agent_id, agent_uid=deleted.uid, fence_agent=True
            ),
            timeout=self._timeout,
            peer=SESSION_SVC,
        )
