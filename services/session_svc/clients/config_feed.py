"""config_svc as session_svc sees it: which agents are there, and what happens to them."""

import asyncio
import contextlib
import enum
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.duration_pb2 import Duration

from contract.reasons import Reason
from parley.config.v1 import agent_config_service_pb2 as pb
from parley.config.v1.agent_config_service_pb2_grpc import AgentConfigServiceStub
from servicekit.channels import call, stream
from servicekit.errors import RemoteError, Unavailable
from session_svc.model.session import AgentIncarnation

PEER = "config_svc"
CALL_SECONDS = 5.0
HEARTBEAT_SECONDS = 2
SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS


class ChangeKind(enum.Enum):
    """What a message of the feed says."""

    NOTHING = "nothing"
    CREATED = "created"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change:
    """One message of the feed; a heartbeat, or a change that means nothing to sessions, has no agent."""

    cursor: str
    kind: ChangeKind = ChangeKind.NOTHING
    agent: AgentIncarnation | None = None


class ConfigFeed(Protocol):
    """The port to the feed of config changes."""

    def changes(self, cursor: str) -> AsyncGenerator[Change, None]:
        """Yields every change behind a cursor, or from now on when it is empty; the first tells the cursor.

        Raises `ServiceError` when the feed ends, `RemoteError` with reason CURSOR_TOO_OLD among others.
        """

    async def exists(self, agent: AgentIncarnation) -> bool:
        """Tells whether this life of the agent goes on. Raises `ServiceError` when that can't be known."""


class ConfigClient:
    """The `ConfigFeed` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = AgentConfigServiceStub(channel)

    async def changes(self, cursor: str) -> AsyncGenerator[Change, None]:
        """See `ConfigFeed`. Without a message for three heartbeats the feed counts as lost."""
        request = pb.WatchAgentConfigsRequest(cursor=cursor, heartbeat_interval=Duration(seconds=HEARTBEAT_SECONDS))
        responses = stream(self._stub.WatchAgentConfigs, request, timeout=None, peer=PEER)
        async with contextlib.aclosing(responses):
            while True:
                try:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        response = await anext(responses, None)
                except TimeoutError:
                    raise Unavailable(PEER) from None
                if response is None:
                    raise Unavailable(PEER)
                yield _change(response)

    async def exists(self, agent: AgentIncarnation) -> bool:
        request = pb.GetAgentConfigRequest(project=agent.project, id=agent.agent_id, uid=agent.agent_uid)
        try:
            response = await call(self._stub.GetAgentConfig, request, timeout=CALL_SECONDS, peer=PEER)
        except RemoteError as error:
            if error.reason in (Reason.AGENT_NOT_FOUND, Reason.PROJECT_NOT_FOUND):
                return False
            raise
        config = response.agent_config
        return bool(config.uid == agent.agent_uid and not config.HasField("delete_time"))


_KINDS = {pb.CHANGE_TYPE_CREATED: ChangeKind.CREATED, pb.CHANGE_TYPE_DELETED: ChangeKind.DELETED}


def _change(response: pb.WatchAgentConfigsResponse) -> Change:
    kind = _KINDS.get(response.change_type, ChangeKind.NOTHING)
    if kind is ChangeKind.NOTHING:
        return Change(response.cursor)
    config = response.agent_config
    return Change(response.cursor, kind, AgentIncarnation(config.project, config.id, config.uid))
