"""The gRPC stubs of the peer services, over two channels shared by the process."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from parley.config.v1 import (
    access_service_pb2_grpc,
    agent_config_service_pb2_grpc,
    provider_service_pb2_grpc,
    template_service_pb2_grpc,
    tool_server_service_pb2_grpc,
)
from parley.session.v1 import session_service_pb2_grpc, turn_service_pb2_grpc

if TYPE_CHECKING:
    # The generated type hints know an asyncio kind of each stub; at run time there is one kind.
    from parley.config.v1.access_service_pb2_grpc import AccessServiceAsyncStub
    from parley.config.v1.agent_config_service_pb2_grpc import AgentConfigServiceAsyncStub
    from parley.config.v1.provider_service_pb2_grpc import ProviderServiceAsyncStub
    from parley.config.v1.template_service_pb2_grpc import TemplateServiceAsyncStub
    from parley.config.v1.tool_server_service_pb2_grpc import ToolServerServiceAsyncStub
    from parley.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from parley.session.v1.turn_service_pb2_grpc import TurnServiceAsyncStub

CONFIG_SVC = "config_svc"
SESSION_SVC = "session_svc"


@dataclass(frozen=True, slots=True)
class Stubs:
    """The stubs of the peer services."""

    access: "AccessServiceAsyncStub"
    agent_configs: "AgentConfigServiceAsyncStub"
    templates: "TemplateServiceAsyncStub"
    providers: "ProviderServiceAsyncStub"
    tool_servers: "ToolServerServiceAsyncStub"
    sessions: "SessionServiceAsyncStub"
    turns: "TurnServiceAsyncStub"


def make_stubs(config_channel: grpc.aio.Channel, session_channel: grpc.aio.Channel) -> Stubs:
    """Returns the stubs over these channels, which the caller closes."""
    return Stubs(
        access=access_service_pb2_grpc.AccessServiceStub(config_channel),
        agent_configs=agent_config_service_pb2_grpc.AgentConfigServiceStub(config_channel),
        templates=template_service_pb2_grpc.TemplateServiceStub(config_channel),
        providers=provider_service_pb2_grpc.ProviderServiceStub(config_channel),
        tool_servers=tool_server_service_pb2_grpc.ToolServerServiceStub(config_channel),
        sessions=session_service_pb2_grpc.SessionServiceStub(session_channel),
        turns=turn_service_pb2_grpc.TurnServiceStub(session_channel),
    )
