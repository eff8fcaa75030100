"""The servers of an installation, and the stubs of their services; channels are opened on first use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from parley.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from parley.chat.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from parley.config.v1.access_service_pb2_grpc import AccessServiceStub
from parley.config.v1.agent_config_service_pb2_grpc import AgentConfigServiceStub
from parley.config.v1.provider_service_pb2_grpc import ProviderServiceStub
from parley.config.v1.template_service_pb2_grpc import TemplateServiceStub
from parley.config.v1.tool_server_service_pb2_grpc import ToolServerServiceStub
from parley.session.v1.session_service_pb2_grpc import SessionServiceStub
from parley.session.v1.turn_service_pb2_grpc import TurnServiceStub
from parley_client.channels import ApiKey, Options, Tls

DEFAULT_GATEWAY: Final = "127.0.0.1:50051"

STUBS: Final[Mapping[str, tuple[str, Any]]] = {
    "chat": ("gateway", ChatServiceStub),
    "runtime": ("gateway", RuntimeServiceStub),
    "agent_configs": ("config", AgentConfigServiceStub),
    "templates": ("config", TemplateServiceStub),
    "access": ("config", AccessServiceStub),
    "tool_servers": ("config", ToolServerServiceStub),
    "providers": ("config", ProviderServiceStub),
    "sessions": ("session", SessionServiceStub),
    "turns": ("session", TurnServiceStub),
}
"""The client's name of each service, and the server that has it."""

ChannelT = TypeVar("ChannelT")


@dataclass(frozen=True, slots=True)
class Servers:
    """The targets of an installation, and the credentials for them, as for `open_channel`."""

    gateway: str = DEFAULT_GATEWAY
    config: str = ""
    """config_svc, for agent configs and access; needed only for its services."""
    session: str = ""
    """session_svc, likewise."""
    tls: Tls | None = None
    api_key: ApiKey = ""
    retry: bool = True
    options: Options = ()


class Connected(Generic[ChannelT]):
    """The stubs of `STUBS` as attributes."""

    def __init__(self, servers: Servers | str, opener: Callable[..., ChannelT]) -> None:
        self._servers = Servers(servers) if isinstance(servers, str) else servers
        self._opener = opener
        self._channels: dict[str, ChannelT] = {}

    def channel(self, server: str) -> ChannelT:
        """Returns the channel to `gateway`, `config` or `session`. Raises ValueError for one without a target."""
        if server not in self._channels:
            known = self._servers
            target = getattr(known, server)
            if not target:
                raise ValueError(f"no target is given for {server}: Servers({server}='host:port')")
            options = {"tls": known.tls, "api_key": known.api_key, "retry": known.retry, "options": known.options}
            self._channels[server] = self._opener(target, server, **options)
        return self._channels[server]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name not in STUBS:
                raise AttributeError(name)
            server, stub = STUBS[name]
            made = stub(self.channel(server))
            setattr(self, name, made)
            return made
