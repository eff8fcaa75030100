"""config_svc's feed of agents as the port `ConfigFeed`."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from contract.reasons import Reason
from parley.config.v1 import agent_config_service_pb2 as pb
from parley.config.v1.agent_config_service_pb2_grpc import AgentConfigServiceStub
from servicekit.channels import call, stream
from servicekit.errors import RemoteError, Unavailable
from session_svc.model.session import AgentIncarnation
from session_svc.ports import Change, ChangeKind

PEER = "config_svc"
CALL_SECONDS = 5.0
HEARTBEAT_SECONDS = 2
SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS


class ConfigClient:
    """The `ConfigFeed` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = AgentConfigServiceStub(channel)

    async def changes(self, cursor: str) -> AsyncGenerator[Change, None]:
        """Without a message for three heartbeats the feed counts as lost."""
        request = pb.WatchAgentConfigsRequest(cursor=cursor, heartbeat_interval=Duration(seconds=HEARTBEAT_SECONDS))
        watch = self._stub.WatchAgentConfigs
        responses = stream(watch, request, timeout=None, silence=SILENCE_SECONDS, peer=PEER)
        async with contextlib.aclosing(responses):
            async for response in responses:
                yield _change(response)
        raise Unavailable(PEER)

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
