"""config_svc as the gateway reads it: single agent configs, and the watch."""

import enum
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta

from chat_gateway.clients.stubs import CONFIG_SVC, Stubs
from chat_gateway.convert.free_form import exact_json_of
from chat_gateway.convert.sampling import sampling_from_proto
from chat_gateway.convert.times import from_duration, from_timestamp, to_duration
from chat_gateway.convert.tools import policy_from_proto, tools_from_proto
from chat_gateway.model.agent_config import NO_POLICY, AgentConfig, Fallback, RequestPolicy
from contract.wire import FALLBACK_TRIGGERS, HISTORY_POLICIES
from parley.config.v1 import agent_config_pb2, agent_config_service_pb2
from servicekit.channels import call, stream

DEFAULT_WINDOW_MESSAGES = 40
DEFAULT_WINDOW_PARTS = 8
DEFAULT_IDLE_TTL = timedelta(minutes=30)
DEFAULT_MAX_LIFETIME = timedelta(hours=24)


class ChangeKind(enum.Enum):
    """What a watch message reports."""

    HEARTBEAT = "heartbeat"
    WRITTEN = "written"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """One message of the watch; `config` is None on a heartbeat."""

    kind: ChangeKind
    cursor: str
    config: AgentConfig | None
    time: datetime | None = None
    """When it was committed, by config_svc's clock."""


class ConfigClient:
    """Calls config_svc. The timeouts bound each call, in seconds."""

    def __init__(self, stubs: Stubs, *, read_timeout: float, write_timeout: float) -> None:
        self._stub = stubs.agent_configs
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout

    async def get(self, project: str, agent_id: str, *, uid: str = "", revision: int = 0) -> AgentConfig:
        """Returns an agent config. Raises `RemoteError` (AGENT_NOT_FOUND, REVISION_NOT_FOUND) or `Unavailable`."""
        request = agent_config_service_pb2.GetAgentConfigRequest(
            project=project, id=agent_id, uid=uid, revision=revision
        )
        response = await call(self._stub.GetAgentConfig, request, timeout=self._read_timeout, peer=CONFIG_SVC)
        return config_from_proto(response.agent_config)

    async def delete(self, project: str, agent_id: str, etag: str) -> str:
        request = agent_config_service_pb2.DeleteAgentConfigRequest(project=project, id=agent_id, etag=etag)
        response = await call(self._stub.DeleteAgentConfig, request, timeout=self._write_timeout, peer=CONFIG_SVC)
        return response.agent_config.uid

    async def watch(self, cursor: str, *, heartbeat: float, silence: float) -> AsyncGenerator[ConfigChange, None]:
        """Yields every change of every project from the cursor on, and heartbeats (seconds apart) in between.

        Raises `ServiceError` when the stream fails, or is silent for too long (seconds): CURSOR_TOO_OLD asks to start
        again without a cursor.
        """
        request = agent_config_service_pb2.WatchAgentConfigsRequest(
            cursor=cursor, heartbeat_interval=to_duration(timedelta(seconds=heartbeat))
        )
        messages = stream(self._stub.WatchAgentConfigs, request, timeout=None, silence=silence, peer=CONFIG_SVC)
        async with aclosing(messages):
            async for message in messages:
                yield _change(message)


def _change(message: agent_config_service_pb2.WatchAgentConfigsResponse) -> ConfigChange:
    if message.change_type == agent_config_service_pb2.CHANGE_TYPE_UNSPECIFIED:
        return ConfigChange(ChangeKind.HEARTBEAT, message.cursor, None)
    deleted = message.change_type == agent_config_service_pb2.CHANGE_TYPE_DELETED
    kind = ChangeKind.DELETED if deleted else ChangeKind.WRITTEN
    return ConfigChange(kind, message.cursor, config_from_proto(message.agent_config), from_timestamp(message.time))


def config_from_proto(config: agent_config_pb2.AgentConfig) -> AgentConfig:
    """Returns what turns need of an agent config; its defaults are those that agent_config.proto states."""
    model, memory, session, limits = config.model, config.memory, config.session, config.limits
    return AgentConfig(
        project=config.project,
        id=config.id,
        uid=config.uid,
        revision=config.revision,
        template_id=config.template_id,
        template_version=config.template_version,
        parameters=exact_json_of(config.parameters, config.parameters_json),
        instructions=config.instructions,
        provider=model.provider,
        model=model.name,
        sampling=sampling_from_proto(model),
        window_messages=memory.max_messages if memory.HasField("max_messages") else DEFAULT_WINDOW_MESSAGES,
        window_parts=memory.max_parts if memory.HasField("max_parts") else DEFAULT_WINDOW_PARTS,
        idle_ttl=from_duration(session.idle_ttl) if session.HasField("idle_ttl") else DEFAULT_IDLE_TTL,
        max_lifetime=from_duration(session.max_lifetime) if session.HasField("max_lifetime") else DEFAULT_MAX_LIFETIME,
        max_concurrent_turns=limits.max_concurrent_turns if limits.HasField("max_concurrent_turns") else None,
        requests_per_minute=limits.requests_per_minute if limits.HasField("requests_per_minute") else None,
        turn_timeout=from_duration(limits.turn_timeout).total_seconds() if limits.HasField("turn_timeout") else None,
        create_time=from_timestamp(config.create_time),
        fallbacks=tuple(
            Fallback(
                one.provider,
                one.name,
                frozenset(FALLBACK_TRIGGERS[number] for number in one.also_on if number in FALLBACK_TRIGGERS),
                sampling_from_proto(one),
            )
            for one in model.fallbacks
        ),
        tools=tools_from_proto(config.tools),
        tool_policy=policy_from_proto(config),
        requests=_policy(config.requests) if config.HasField("requests") else NO_POLICY,
        extra={name: text.encode() for name, text in model.extra.items()},
    )


def _policy(said: agent_config_pb2.RequestPolicy) -> RequestPolicy:
    return RequestPolicy(
        store=said.store if said.HasField("store") else True,
        history=HISTORY_POLICIES.get(said.history),
        overridable=frozenset(said.overridable.names) if said.HasField("overridable") else None,
    )
