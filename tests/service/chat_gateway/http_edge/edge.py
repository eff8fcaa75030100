"""The real edge on a real socket, with scripted turns and scripted peers behind it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
import httpx
from prometheus_client import CollectorRegistry

from access.authenticator import Authenticator
from chat_gateway.clients.journal_client import JournalClient
from chat_gateway.clients.replicas import Replicas
from chat_gateway.clients.stubs import make_stubs
from chat_gateway.finishing import FinishingTurns
from chat_gateway.http_edge.app import build_app
from chat_gateway.http_edge.console.files import ConsoleFiles
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.wire.connections import ConnectionLimits
from chat_gateway.http_edge.wire.protocol import HEAD_TIMEOUT
from chat_gateway.http_edge.wire.server import HttpServer, http_serving
from chat_gateway.instances import InstanceInfo
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.tool_servers import ToolServerTest
from chat_gateway.model.turn import (
    Delta,
    FinishReason,
    Message,
    OnDelta,
    OnStarted,
    TurnOutcome,
    TurnRequest,
    TurnStarted,
    Usage,
)
from chat_gateway.model.watches import WatchBounds
from chat_gateway.open_watches import OpenWatches
from contract.enums import Role
from parley.config.v1 import (
    agent_config_service_pb2_grpc,
    provider_service_pb2_grpc,
    template_service_pb2_grpc,
    tool_server_service_pb2_grpc,
)
from parley.session.v1 import session_service_pb2_grpc
from servicekit.interceptors import ErrorMapping

BEGUN = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
EXPIRES = datetime(2026, 5, 4, 3, 32, 1, 500000, tzinfo=UTC)

Run = Callable[[TurnRequest, OnStarted | None, OnDelta | None], Awaitable[TurnOutcome]]


def outcome(text: str = "Hello!", **fields: Any) -> TurnOutcome:
    """A stored turn; `fields` replace what it is by default."""
    values: dict[str, Any] = {
        "turn_id": "t1",
        "session_id": "s1",
        "session_created": True,
        "turn_number": 1,
        "session_expire_time": EXPIRES,
        "agent_revision": 3,
        "message": Message(Role.ASSISTANT, text),
        "finish_reason": FinishReason.STOP,
        "usage": Usage(10, 5, 2),
        "model": "mock",
        "begin_time": BEGUN,
    }
    return TurnOutcome(**values | fields)


STARTED = TurnStarted(
    turn_id="t1",
    session_id="s1",
    session_created=True,
    session_expire_time=EXPIRES,
    agent_revision=3,
    begin_time=BEGUN,
)


class ScriptedTurns:
    """Runs what the test says, and remembers what it was asked; `cancelled` is set when a turn's task is."""

    def __init__(self) -> None:
        self.requests: list[TurnRequest] = []
        self.running = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.script: Run = whole("Hello!")

    async def run(
        self, request: TurnRequest, on_started: OnStarted | None = None, on_delta: OnDelta | None = None
    ) -> TurnOutcome:
        self.requests.append(request)
        self.running.set()
        try:
            return await self.script(request, on_started, on_delta)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def whole(text: str, **fields: Any) -> Run:
    """Answers at once, in one delta where the answer is streamed."""
    return pieces([Delta(text)], text, **fields)


def pieces(deltas: list[Delta], text: str, **fields: Any) -> Run:
    """Answers with these deltas."""

    async def run(request: TurnRequest, on_started: OnStarted | None, on_delta: OnDelta | None) -> TurnOutcome:
        if on_started is not None and on_delta is not None:
            await on_started(STARTED)
            for delta in deltas:
                await on_delta(delta)
        return outcome(text, **fields)

    return run


def failing(error: Exception, *, after: list[Delta] | None = None) -> Run:
    """Fails: before the turn has begun, or after these deltas."""

    async def run(request: TurnRequest, on_started: OnStarted | None, on_delta: OnDelta | None) -> TurnOutcome:
        if after is not None and on_started is not None and on_delta is not None:
            await on_started(STARTED)
            for delta in after:
                await on_delta(delta)
        raise error

    return run


def hanging(*, started: bool = True) -> Run:
    """Never answers."""

    async def run(request: TurnRequest, on_started: OnStarted | None, on_delta: OnDelta | None) -> TurnOutcome:
        if started and on_started is not None:
            await on_started(STARTED)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    return run


class Peers:
    """Both peers in one: each RPC answers what the test put under its name: a message, an error, or a function."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: dict[str, list[Any]] = {}

    def asked(self, method: str) -> Any:
        """The last request of a method."""
        return self.requests[method][-1]

    def __getattr__(self, method: str) -> Any:
        async def answer(request: Any, _: Any) -> Any:
            self.requests.setdefault(method, []).append(request)
            said = self.answers[method]
            if isinstance(said, list):
                said = said.pop(0)
            if callable(said):
                said = said(request)
            if isinstance(said, Exception):
                raise said
            return said

        return answer


class FakeDeletion:
    def __init__(self) -> None:
        self.deleted: list[tuple[str, str, str]] = []
        self.error: Exception | None = None

    async def delete(self, project: str, agent_id: str, etag: str = "") -> None:
        if self.error is not None:
            raise self.error
        self.deleted.append((project, agent_id, etag))


class FakeConfigs:
    def __init__(self) -> None:
        self.forgotten: list[tuple[str, str, str]] = []

    async def current(self, project: str, agent_id: str) -> AgentConfig:
        raise NotImplementedError

    async def at_revision(self, current: AgentConfig, revision: int) -> AgentConfig:
        raise NotImplementedError

    def forget(self, project: str, agent_id: str, uid: str) -> None:
        self.forgotten.append((project, agent_id, uid))


class FakeInstances:
    def __init__(self) -> None:
        self.kept = [InstanceInfo("default", "hello", "u1", 3, "assistant", BEGUN, EXPIRES, 7)]
        self.evicted: list[tuple[str, str]] = []

    def list(self, project: str, agent_id: str = "") -> list[InstanceInfo]:
        return [kept for kept in self.kept if kept.project == project and agent_id in ("", kept.agent_id)]

    def evict(self, project: str, agent_id: str = "") -> int:
        self.evicted.append((project, agent_id))
        return len(self.list(project, agent_id))


class FakeToolServerTests:
    def __init__(self) -> None:
        self.outcome = ToolServerTest(())
        self.asked: list[tuple[str, str]] = []

    async def test(self, project: str, tool_server_id: str) -> ToolServerTest:
        self.asked.append((project, tool_server_id))
        return self.outcome


class FakeReadiness:
    def __init__(self) -> None:
        self.parts: dict[str, str] = {"config_svc": "ok", "session_svc": "ok"}
        self.started = True

    @property
    def ready(self) -> bool:
        return all(state == "ok" for state in self.parts.values())

    def report(self) -> Mapping[str, str]:
        return self.parts


@dataclass
class Edge:
    """The running edge with what stands behind it."""

    port: int
    client: httpx.AsyncClient
    turns: ScriptedTurns
    peers: Peers
    configs: FakeConfigs
    deletion: FakeDeletion
    instances: FakeInstances
    readiness: FakeReadiness
    server: HttpServer
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    tool_server_tests: FakeToolServerTests = field(default_factory=FakeToolServerTests)

    async def chat(self, headers: Mapping[str, str] | None = None, **fields: Any) -> httpx.Response:
        """Sends a chat completion; `fields` replace or add to the body."""
        body = {"model": "hello", "messages": [{"role": "user", "content": "Hi"}]} | fields
        return await self.client.post("/v1/chat/completions", json=body, headers=headers)


@contextlib.asynccontextmanager
async def running_edge(
    settings: HttpSettings | None = None,
    *,
    drain_timeout: float = 1.0,
    head_timeout: float = HEAD_TIMEOUT,
    limits: ConnectionLimits | None = None,
    authenticator: Authenticator | None = None,
    cors_origins: Sequence[str] = (),
    console: ConsoleFiles | None = None,
    replicas: Replicas | None = None,
    runs: FinishingTurns | None = None,
) -> AsyncIterator[Edge]:
    """Serves the edge on any free port; `runs` runs its turns instead of a script."""
    async with contextlib.AsyncExitStack() as stack:
        peers = Peers()
        channel = await stack.enter_async_context(_serve_peers(peers))
        turns, registry = ScriptedTurns(), CollectorRegistry()
        configs, deletion = FakeConfigs(), FakeDeletion()
        instances, readiness = FakeInstances(), FakeReadiness()
        bounds, tests = settings or HttpSettings(), FakeToolServerTests()
        stubs = make_stubs(channel, channel)
        app = build_app(
            runs or turns,
            stubs,
            deletion,
            instances,
            readiness,
            bounds,
            authenticator=authenticator,
            registry=registry,
            configs=configs,
            tool_servers=tests,
            console=console,
            replicas=replicas,
            journals=JournalClient(stubs, OpenWatches(WatchBounds())),
        )
        serving = http_serving(
            app,
            "127.0.0.1",
            0,
            drain_timeout,
            head_timeout=head_timeout,
            write_timeout=bounds.write_timeout,
            limits=limits,
            cors_origins=cors_origins,
        )
        server = await stack.enter_async_context(serving)
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60, trust_env=False)
        )
        yield Edge(server.port, client, turns, peers, configs, deletion, instances, readiness, server, registry, tests)


@contextlib.asynccontextmanager
async def _serve_peers(peers: Peers) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[ErrorMapping()])
    agent_config_service_pb2_grpc.add_AgentConfigServiceServicer_to_server(peers, server)
    template_service_pb2_grpc.add_TemplateServiceServicer_to_server(peers, server)
    provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(peers, server)
    tool_server_service_pb2_grpc.add_ToolServerServiceServicer_to_server(peers, server)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(peers, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)
