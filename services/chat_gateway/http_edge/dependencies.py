"""The dependencies of the HTTP edge, and its own bounds."""

from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry

from access.oidc_settings import OidcIssuer
from chat_gateway.background import BackgroundTurns
from chat_gateway.clients.journal_client import JournalClient
from chat_gateway.clients.readiness import Readiness
from chat_gateway.clients.replicas import Replicas
from chat_gateway.clients.stubs import Stubs
from chat_gateway.deletion import AgentDeletion
from chat_gateway.figures import Figures
from chat_gateway.http_edge.wire.auth import Authorizer
from chat_gateway.instances import Instances
from chat_gateway.memory import MemoryBudget
from chat_gateway.model.rules import DEFAULT_BOUNDS, RequestBounds
from chat_gateway.ports import Configs, ToolServerTests
from servicekit.channels import Peer

DEPENDENCIES: Final = "parley.dependencies"
"""Where in the scope of a request its `Dependencies` are."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The edge's bounds: seconds, bytes and requests."""

    max_body_bytes: int = 20 * 1024 * 1024
    max_admin_body_bytes: int = 4 * 1024 * 1024
    """The largest body of a request that asks for no turn."""
    memory: MemoryBudget = field(default_factory=lambda: MemoryBudget(64 * 1024 * 1024))
    """What large requests have of memory."""
    decoding: MemoryBudget = field(default_factory=lambda: MemoryBudget(20 * 1024 * 1024))
    """What those have that are decoded at the same time: decoding takes several times what is decoded."""
    body_timeout: float = 60.0
    """How long a body may take to arrive."""
    keep_alive_interval: float = 10.0
    """A stream that is silent for so long gets a comment."""
    write_timeout: float = 60.0
    """A streaming client that takes nothing for so long is cut off."""
    rpc_timeout: float = 10.0
    """Deadline of each call to a peer by the admin API."""
    purge_timeout: float = 60.0
    """How long one purge may go on before the caller has to repeat it."""
    request_bounds: RequestBounds = DEFAULT_BOUNDS
    max_requests: int = 1024
    """Chat completions at once, counted from before their bodies are read; one more is refused."""
    access_log: bool = False
    """Log a line for each chat completion, too."""
    issuers: tuple[OidcIssuer, ...] = ()
    """Identity providers whose tokens are accepted."""
    grpc_target: str = ""
    """Where callers reach the gRPC API, where that is not at the port below of the host that they ask."""
    grpc_port: int = 0


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the admin routes use of the rest of the gateway."""

    stubs: Stubs
    config_svc: Peer
    session_svc: Peer
    configs: Configs
    deletion: AgentDeletion
    instances: Instances
    readiness: Readiness
    settings: HttpSettings
    registry: CollectorRegistry
    tool_servers: ToolServerTests
    figures: Figures
    replicas: Replicas
    journals: JournalClient
    authorizer: Authorizer
    authenticated: bool = False
    """Whether credentials are required."""
    background: BackgroundTurns | None = None
    """Of turns that run; without it only what is stored is known."""
