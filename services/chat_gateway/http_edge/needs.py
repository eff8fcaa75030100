"""What the HTTP edge needs of the rest of the gateway, as ports, and its own bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from prometheus_client import REGISTRY, CollectorRegistry

from chat_gateway.model import OnDelta, OnStarted, TurnOutcome, TurnRequest

if TYPE_CHECKING:
    # The generated type hints know an asyncio kind of each stub; at run time there is one kind.
    from parley.config.v1.agent_config_service_pb2_grpc import AgentConfigServiceAsyncStub
    from parley.config.v1.provider_service_pb2_grpc import ProviderServiceAsyncStub
    from parley.config.v1.template_service_pb2_grpc import TemplateServiceAsyncStub
    from parley.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub

PROJECT = "default"
"""The project of every request, as long as there is no authentication that could name another."""


class Turns(Protocol):
    """Runs turns."""

    async def run(
        self, request: TurnRequest, on_started: OnStarted | None = None, on_delta: OnDelta | None = None
    ) -> TurnOutcome:
        """Runs one turn in the caller's task and returns once it is committed. Raises `ServiceError`."""


class Deletion(Protocol):
    """Deletes agents."""

    async def delete(self, project: str, agent_id: str, etag: str = "") -> object:
        """Deletes the agent config, its sessions and its instances, so that no turn starts any more."""


class InstanceInfo(Protocol):
    """One agent instance of this process."""

    @property
    def agent_id(self) -> str:
        """The agent."""
        ...

    @property
    def agent_uid(self) -> str:
        """The agent's uid."""
        ...

    @property
    def agent_revision(self) -> int:
        """The revision that it was built from."""
        ...

    @property
    def template_id(self) -> str:
        """The template that built it."""
        ...

    @property
    def build_time(self) -> datetime:
        """When it was built."""
        ...

    @property
    def last_used_time(self) -> datetime:
        """When a turn last used it."""
        ...

    @property
    def turn_count(self) -> int:
        """Turns that it has run."""
        ...


class Instances(Protocol):
    """The agent instances of this process."""

    def list(self, project: str, agent_id: str = "") -> Sequence[InstanceInfo]:
        """Lists them, the most recently used first."""

    def evict(self, project: str, agent_id: str = "") -> int:
        """Drops those of one agent, or all, and returns how many; running turns finish on what they have."""


class Readiness(Protocol):
    """Whether the parts that the gateway needs are there."""

    @property
    def ready(self) -> bool:
        """Whether turns can run."""
        ...

    def report(self) -> Mapping[str, str]:
        """Returns each part with `ok`, or what is wrong with it."""


class Stubs(Protocol):
    """The peers that the admin API passes requests on to."""

    @property
    def agent_configs(self) -> AgentConfigServiceAsyncStub:
        """Of config_svc."""
        ...

    @property
    def templates(self) -> TemplateServiceAsyncStub:
        """Of config_svc."""
        ...

    @property
    def providers(self) -> ProviderServiceAsyncStub:
        """Of config_svc."""
        ...

    @property
    def sessions(self) -> SessionServiceAsyncStub:
        """Of session_svc."""
        ...


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The edge's bounds: seconds, bytes and requests."""

    max_body_bytes: int = 4 * 1024 * 1024
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
    max_requests: int = 1024
    """Chat completions at once, counted from before their bodies are read; one more is refused."""
    access_log: bool = False
    """Log a line for each chat completion, too."""


@dataclass(frozen=True, slots=True)
class Needs:
    """All of it, as the admin routes get it."""

    stubs: Stubs
    deletion: Deletion
    instances: Instances
    readiness: Readiness
    settings: HttpSettings
    registry: CollectorRegistry = REGISTRY
