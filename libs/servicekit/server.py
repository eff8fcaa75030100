"""A gRPC server with health, reflection, limits, interceptors and a graceful drain."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY, CollectorRegistry

from servicekit import reflection, traces
from servicekit.bounded_calls import Admit, BoundedCalls, CallBounds, LargeRequests
from servicekit.call_acceptor import NamedHandlers, registered_server
from servicekit.channels import CONNECTION_OPTIONS, MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES, message_options
from servicekit.errors import StartupError
from servicekit.interceptors import (
    Behavior,
    CallLog,
    CallMetrics,
    EndOnDrain,
    ErrorMapping,
    HandlerInterceptor,
    Observed,
    Traced,
    remaining,
)
from servicekit.loop_lag import measuring_lag
from servicekit.metrics import call_duration, observe_tasks
from servicekit.peers import AcceptPeers
from servicekit.settings import ServiceSettings
from servicekit.tls import Certificates, server_credentials
from servicekit.unread import MAX_UNREAD_BYTES
from servicekit.unread_replies import UnreadReplies

__all__ = ["STARTED", "CallerBounds", "GrpcServer", "as_called", "check_port", "remaining", "serving"]

STARTED = "started"
"""The name under which the health service says that this process has started and does not drain.

Load balancers should use it: a service that has lost its store gives better errors than a load balancer would, and
calls that need no store still work.
"""

_WATCH_HEALTH = "grpc.health.v1.Health/Watch"
_QUIET_METHODS = ("grpc.health.v1.Health/Check", _WATCH_HEALTH, *reflection.METHODS)

_NOTICE = 0.05
"""Seconds in which watches of the health get NOT_SERVING before they end."""

_LAST_WORDS = 0.5
"""Seconds in which callers learn that a drain ended their calls, before gRPC ends the others."""

_MAX_HEALTH_CALLS = 64
_CONNECTION_AGE_SECONDS = 1800.0

_SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *CONNECTION_OPTIONS,
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.so_reuseport", 0),  # a taken port is an error, never shared
    ("grpc.server_handshake_timeout_ms", 10_000),  # of TLS, and of HTTP/2's first frames
    ("grpc.max_connection_idle_ms", 600_000),
)


@dataclass(frozen=True, slots=True)
class CallerBounds:
    """Bounds for untrusted callers."""

    max_streams: int
    """Calls of one connection at a time."""
    max_calls_per_source: int
    """Calls of one address at a time."""
    longest_call_seconds: float
    """How long calls have to end after their connection was asked to, which it is every half hour."""
    large: LargeRequests | None = None
    admit: Admit | None = None
    """Asked before anything of a call's request is read."""
    max_unread_bytes: int = MAX_UNREAD_BYTES
    """Of replies, of all calls together."""


class GrpcServer:
    """A server that is up: its bound `port`, its health, and the steps of its end, each of them idempotent."""

    def __init__(self, server: grpc.aio.Server, port: int, health_servicer: Any, on_drain: EndOnDrain) -> None:
        self.port = port
        self._server = server
        self._health = health_servicer
        self._on_drain = on_drain
        self._closing: asyncio.Task[None] | None = None
        self._retired = False
        self._started = False

    @property
    def started(self) -> bool:
        """Whether this process has started and does not drain, whatever its stores and peers do meanwhile."""
        return self._started and not self._retired

    async def set_serving(self, service: str, serving: bool) -> None:
        """Sets the health of one service, or of the whole server with "". Idempotent; ignored while draining.

        A service that has been SERVING has started.
        """
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(service, status)
        if serving:
            await self.set_started()

    async def set_started(self) -> None:
        """Reports `STARTED` as serving, until the drain. Idempotent; ignored while draining."""
        if not self._started:
            self._started = True
            await self._health.set(STARTED, health_pb2.HealthCheckResponse.SERVING)

    async def retire(self) -> None:
        """Reports NOT_SERVING from now on, and keeps serving."""
        self._retired = True
        if self._closing is None:
            await self._health.enter_graceful_shutdown()

    def stop_accepting(self, grace: float) -> None:
        """Refuses new calls from now on; ends watches at once, and other running calls after `grace` seconds."""
        if self._closing is None:
            self._on_drain.drain()
            self._closing = asyncio.get_running_loop().create_task(self._stop(grace), name="stop accepting")

    async def _stop(self, grace: float) -> None:
        stopping = asyncio.ensure_future(self._server.stop(grace + _LAST_WORDS))
        await asyncio.wait((stopping,), timeout=grace)
        self._on_drain.cut()
        await stopping

    async def end(self, notice: float, grace: float, on_end: Callable[[], None]) -> None:
        """Retires, gives `notice` seconds, calls `on_end`, stops accepting and returns when no call runs."""
        await self.retire()
        if self._closing is None:
            await asyncio.sleep(max(notice, _NOTICE if self._on_drain.running else 0.0))
        on_end()
        self.stop_accepting(grace)
        if self._closing is not None:
            await self._closing


@contextlib.asynccontextmanager
async def serving(
    settings: ServiceSettings,
    *,
    add: Sequence[tuple[Callable[[Any, Any], None], Any]],
    service_names: Sequence[str],
    endless: Iterable[str] = (),
    quiet: Collection[str] = (),
    interceptors: Sequence[HandlerInterceptor] = (),
    ready: bool = True,
    on_end: Callable[[], None] = lambda: None,
    registry: CollectorRegistry = REGISTRY,
    tls: Certificates | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    generic: Sequence[NamedHandlers] = (),
    callers: CallerBounds | None = None,
) -> AsyncIterator[GrpcServer]:
    """Serves the servicers in `add` on `settings.host:settings.grpc_port` while open.

    `add` pairs each generated `add_XServicer_to_server` with its servicer; `service_names` are their full names, for
    health and reflection. `endless` names methods (`/package.Service/Method`) whose calls never end by themselves: a
    drain ends them with `Draining` instead of waiting. Methods in `quiet` (`package.Service/Method`) have no span, and
    are logged at debug level. `interceptors` run inside the error mapping, and must raise from the handlers they wrap
    (`HandlerInterceptor`). With `ready` false every service starts as NOT_SERVING, until `set_serving`. With `tls` the
    port serves TLS; if it has authorities, clients must have a certificate of theirs, and while authentication is off
    it must be one of `settings.tls_peers`. `max_message_bytes` limits received messages. `generic` serves methods
    without a servicer in `add`. `callers` bounds untrusted callers. `settings.health_port` reports the same health on a
    port of its own, without TLS. The health service itself is SERVING until the drain, for liveness probes; `STARTED`
    is from the first time that a service is, for readiness probes.

    Leaving drains: health turns NOT_SERVING, calls are served for `settings.drain_notice` more seconds, then `on_end`
    is called and new calls are refused; running ones get `settings.drain_timeout` seconds, then end with `Draining`.
    Raises `StartupError` naming host:port if the port is not available.
    """
    open_to_all = [f"/{method}" for method in (_WATCH_HEALTH, *reflection.METHODS)]
    on_drain = EndOnDrain({*endless, *open_to_all})
    bounds = _call_bounds(settings, callers, open_to_all)
    server = registered_server(
        interceptors=[
            *_observing((*_QUIET_METHODS, *quiet), registry),
            ErrorMapping(),
            BoundedCalls(bounds, admit=None if callers is None else callers.admit),
            *(() if callers is None else (UnreadReplies(callers.max_unread_bytes),)),
            on_drain,
            *_accepting(settings, tls),
            *interceptors,
        ],
        options=_server_options(settings, max_message_bytes, callers),
        maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
    )
    for add_to_server, servicer in add:
        add_to_server(servicer, server)
    server.add_generic_rpc_handlers(tuple(generic))
    health_servicer = health.aio.HealthServicer()  # type: ignore[attr-defined, unused-ignore]
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    if settings.reflection:
        _enable_reflection(server, service_names, generic)
    port = _bind(server, settings.host, settings.grpc_port, tls)
    running = GrpcServer(server, port, health_servicer, on_drain)
    observe_tasks(registry)
    await _set_first_health(running, health_servicer, service_names, ready=ready)
    async with _health_listening(settings, health_servicer):
        try:
            await server.start()
            async with measuring_lag(registry):
                yield running
        finally:
            await running.end(settings.drain_notice, settings.drain_timeout, on_end)


def _observing(quiet: Collection[str], registry: CollectorRegistry) -> Sequence[HandlerInterceptor]:
    observed = Observed([CallMetrics(call_duration(registry)), CallLog(quiet)])
    return (Traced(quiet), observed) if traces.on() else (observed,)


async def _set_first_health(
    running: GrpcServer, health_servicer: Any, service_names: Sequence[str], *, ready: bool
) -> None:
    for name in ("", *service_names):
        await running.set_serving(name, ready)
    await health_servicer.set(health.SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
    if not running.started:
        await health_servicer.set(STARTED, health_pb2.HealthCheckResponse.NOT_SERVING)


def _call_bounds(settings: ServiceSettings, callers: CallerBounds | None, open_to_all: Collection[str]) -> CallBounds:
    return CallBounds(
        per_source=None if callers is None else callers.max_calls_per_source,
        waiting=max(settings.max_concurrent_rpcs // 2, 1),
        endless=open_to_all,
        large=None if callers is None else callers.large,
    )


def _enable_reflection(server: grpc.aio.Server, service_names: Sequence[str], generic: Sequence[NamedHandlers]) -> None:
    lazy = {method.split("/")[1]: handlers.load for handlers in generic for method in handlers.methods}
    reflection.enable([*service_names, health.SERVICE_NAME], server, lazy)


def _server_options(
    settings: ServiceSettings, max_message_bytes: int, callers: CallerBounds | None
) -> tuple[tuple[str, int], ...]:
    return (
        *_SERVER_OPTIONS,
        *message_options(max(max_message_bytes, MAX_ANSWER_BYTES), max_message_bytes),
        *_queue_options(settings),
        *(() if callers is None else _caller_options(callers)),
    )


def _queue_options(settings: ServiceSettings) -> tuple[tuple[str, int], ...]:
    # Calls that were not looked at yet: gRPC ends those beyond the first bound at random, and all beyond the second,
    # as CANCELLED, which says nothing to their callers. Those taken beyond `max_concurrent_rpcs` get an answer.
    count = settings.max_concurrent_rpcs
    return (
        ("grpc.max_allowed_incoming_connections", settings.max_grpc_connections),
        ("grpc.server.max_pending_requests", 2 * count),
        ("grpc.server.max_pending_requests_hard_limit", 4 * count),
    )


def _caller_options(callers: CallerBounds) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_concurrent_streams", callers.max_streams),
        # A ping with each stream that a client resets: the client has to answer before it may reset many more.
        ("grpc.http2.ping_on_rst_stream_percent", 100),
        # Nothing else ends a call whose answer is not read.
        ("grpc.max_connection_age_ms", int(_CONNECTION_AGE_SECONDS * 1000)),
        ("grpc.max_connection_age_grace_ms", int(callers.longest_call_seconds * 1000)),
    )


@contextlib.asynccontextmanager
async def _health_listening(settings: ServiceSettings, health_servicer: Any) -> AsyncIterator[None]:
    """Reports health, and nothing else, on `settings.health_port` while open: until after the drain."""
    if not settings.health_port:
        yield
        return
    server = registered_server(options=_SERVER_OPTIONS, maximum_concurrent_rpcs=_MAX_HEALTH_CALLS)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    _bind(server, settings.host, settings.health_port, None)
    try:
        await server.start()
        yield
    finally:
        await server.stop(None)


def as_called(method: str, behavior: Behavior, registry: CollectorRegistry = REGISTRY) -> Behavior:
    """Returns a unary method's `behavior` with the errors, log, measurements and span of a call to `serving`.

    For calls that reach `method` (`/package.Service/Method`) in another way than as an RPC of their own. A failure ends
    in the `abort` of the context that is given.
    """
    observed = Observed([CallMetrics(call_duration(registry)), CallLog()])
    around = observed.wrap(method, ErrorMapping().wrap(method, behavior))
    return Traced().wrap(method, around) if traces.on() else around


def check_port(host: str, port: int) -> None:
    """Raises `StartupError` naming `host:port` unless a listener can be opened there now."""
    address = _address(host, port)
    try:
        family, _, _, _, where = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartupError(f"port {address} is taken by another process") from error
        raise StartupError(f"cannot listen on {address}: {(error.strerror or str(error)).lower()}") from error


def _accepting(settings: ServiceSettings, tls: Certificates | None) -> list[HandlerInterceptor]:
    # Where authentication is on, it knows the services by the same names.
    return [AcceptPeers(settings.tls_peers)] if tls is not None and tls.material.ca and settings.auth == "off" else []


def _bind(server: grpc.aio.Server, host: str, port: int, tls: Certificates | None) -> int:
    check_port(host, port)  # gRPC does not say why it can't bind
    address = _address(host, port)
    try:
        if tls is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, server_credentials(tls))
    except RuntimeError as error:
        raise StartupError(f"port {address} is taken or can't be bound") from error
    if not bound:
        raise StartupError(f"port {address} is taken or can't be bound")
    return bound


def _address(host: str, port: int) -> str:
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"
