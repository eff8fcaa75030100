"""Prometheus metrics: what every gRPC server measures, and a small HTTP endpoint for services without an HTTP edge."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from weakref import WeakKeyDictionary

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST as TEXT_TYPE
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from servicekit.errors import StartupError
from servicekit.sites import site_of
from servicekit.supervision import cancel_and_wait, restarting


@dataclass(frozen=True, slots=True)
class Down:
    """A part that is unavailable, and why: one line for operators, without secrets."""

    why: str


State = bool | str | Down
"""Of a part: up, unavailable, or impaired as the text says."""
Readiness = Callable[[], Awaitable[Mapping[str, State]]]
"""Returns for each part that the service needs whether it is available; the service is ready when all are. A text says
what is wrong with a part that does not keep the service from its work."""

DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Seconds. From a local call to the longest turn."""

log = structlog.get_logger("servicekit.metrics")

_MAX_REQUEST_BYTES = 8 * 1024
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rf"(?P<method>{_TOKEN}) (?P<path>/[!->@-~]*)(?:\?[!-~]*)? HTTP/1\.[01]\r\n")
_HEADER_LINE = re.compile(rf"{_TOKEN}:[^\0\r\n]*")
_NOT_HTTP = b"the request is not HTTP/1.1 that can be read\n"
_TOO_LARGE = b"the request's headers are larger than %d bytes\n" % _MAX_REQUEST_BYTES


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """What the endpoint of the metrics allows.

    Seconds for one request, for the readiness check within it, and for its client to take the answer; connections at a
    time, in all and from one source (an IPv4 address, or the first 64 bits of an IPv6 address).
    """

    request_seconds: float = 5.0
    check_seconds: float = 2.0
    write_seconds: float = 5.0
    max_connections: int = 32
    max_connections_per_source: int = 24


DEFAULT_LIMITS = EndpointLimits()
_EXPOSITION_PAUSE = 9
"""How many times as long as an exposition took the next one is waited for: a tenth of the loop's time is theirs."""


def call_duration(registry: CollectorRegistry = REGISTRY) -> Histogram:
    """Returns the registry's histogram of server calls, in seconds: OpenTelemetry's `rpc.server.call.duration`.

    It is the same one for every server of the process that measures into `registry`.
    """
    histogram = _CALL_DURATIONS.get(registry)
    if histogram is None:
        histogram = _CALL_DURATIONS[registry] = _new_call_duration(registry)
    return histogram


_CALL_DURATIONS: WeakKeyDictionary[CollectorRegistry, Histogram] = WeakKeyDictionary()


def _new_call_duration(registry: CollectorRegistry) -> Histogram:
    return Histogram(
        "rpc_server_call_duration_seconds",
        "Duration of inbound RPCs, streams until their end.",
        ["rpc_method", "rpc_response_status_code"],
        buckets=DURATION_BUCKETS,
        registry=registry,
    )


def observe_tasks(registry: CollectorRegistry = REGISTRY) -> None:
    """Adds the gauge of the running loop's tasks, counted whenever it is read. Idempotent; a later loop replaces it.

    It returns to where it was when the work is done: one that grows is a leak.
    """
    gauge = _TASKS.get(registry)
    if gauge is None:
        gauge = _TASKS[registry] = Gauge("parley_asyncio_tasks", "Tasks of the event loop.", registry=registry)
    loop = asyncio.get_running_loop()
    gauge.set_function(lambda: len(asyncio.all_tasks(loop)))


_TASKS: WeakKeyDictionary[CollectorRegistry, Gauge] = WeakKeyDictionary()


def exposition(registry: CollectorRegistry = REGISTRY, accept: str = "") -> tuple[bytes, str]:
    """Returns the registry's content and its content type, as OpenMetrics when `accept` asks for that."""
    if "application/openmetrics-text" in accept:
        return generate_openmetrics(registry), OPENMETRICS_TYPE  # type: ignore[no-untyped-call]
    return generate_text(registry), TEXT_TYPE


async def _always_ready() -> Mapping[str, State]:
    return {}


def observe_restarts(registry: CollectorRegistry = REGISTRY) -> None:
    """Adds the gauge of background work that a fault ended a moment ago, counted whenever it is read. Idempotent."""
    if registry not in _RESTARTING:
        gauge = _RESTARTING[registry] = Gauge(
            "parley_background_restarting", "Background work that a fault ended a moment ago.", registry=registry
        )
        gauge.set_function(lambda: len(restarting()))


_RESTARTING: WeakKeyDictionary[CollectorRegistry, Gauge] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def serve_metrics(
    host: str,
    port: int,
    *,
    readiness: Readiness = _always_ready,
    started: Callable[[], bool] = lambda: True,
    registry: CollectorRegistry = REGISTRY,
    limits: EndpointLimits = DEFAULT_LIMITS,
) -> AsyncIterator[int | None]:
    """Serves `/metrics`, `/livez`, `/readyz` and `/startedz` on `host:port` while open; yields the port (0: None).

    `/readyz` is 503 while a part is unavailable or the check takes too long, and names the parts, with the reasons that
    are known; what does not keep the service from its work, background work that restarts among it, is named under
    `warnings`. `/startedz` is 503 until `started` and while draining, whatever the parts do. `limits` bound the
    endpoint. Raises `StartupError` when the port is not available.
    """
    if port == 0:
        yield None
        return
    observe_restarts(registry)
    endpoint = _Endpoint(readiness, started, registry, limits)
    try:
        server = await asyncio.start_server(endpoint.handle, host, port, limit=_MAX_REQUEST_BYTES)
    except OSError as error:
        raise StartupError(f"cannot serve metrics on {host}:{port}: {_reason(error)}") from error
    try:
        yield port
    finally:
        server.close()
        await endpoint.close()
        await server.wait_closed()


class _Endpoint:
    """Answers one HTTP/1.1 request a connection."""

    def __init__(
        self, readiness: Readiness, started: Callable[[], bool], registry: CollectorRegistry, limits: EndpointLimits
    ) -> None:
        self._readiness = readiness
        self._started = started
        self._registry = registry
        self._limits = limits
        self._open: dict[asyncio.Task[None], str] = {}
        """The connections with their sources."""
        self._closing = False
        self._check: asyncio.Task[Mapping[str, State]] | None = None
        """The readiness check that is under way, for all who ask meanwhile."""
        self._writing = asyncio.Lock()
        self._written: dict[str, tuple[float, tuple[bytes, str]]] = {}
        """By what is asked for: the last exposition, and when it was begun."""
        self._next_at = 0.0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        source = site_of(str((writer.get_extra_info("peername") or ("",))[0]))
        if task is None or not self._has_room(source):
            writer.close()
            return
        self._open[task] = source
        try:
            await self._exchange(reader, writer)
        except (TimeoutError, ConnectionError):
            writer.transport.abort()  # a close would wait for what the client does not take
        except asyncio.CancelledError:
            writer.transport.abort()
            if not self._closing:  # asyncio 3.11 logs a cancelled handler as an error
                raise
        finally:
            del self._open[task]
            writer.close()

    def _has_room(self, source: str) -> bool:
        own = sum(source == other for other in self._open.values())
        return len(self._open) < self._limits.max_connections and own < self._limits.max_connections_per_source

    async def close(self) -> None:
        self._closing = True
        await cancel_and_wait(*self._open, *([self._check] if self._check is not None else ()))

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                request = read_request(await reader.readuntil(b"\r\n\r\n"))
                method = request[0] if request is not None else ""
                if request is None:
                    answer = HTTPStatus.BAD_REQUEST, "text/plain", _NOT_HTTP
                else:
                    answer = await self._respond(*request)
        except asyncio.LimitOverrunError:
            method, answer = "", (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "text/plain", _TOO_LARGE)
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                return
            method, answer = "", (HTTPStatus.BAD_REQUEST, "text/plain", _NOT_HTTP)
        async with asyncio.timeout(self._limits.write_seconds):
            await _write(writer, method, *answer)

    async def _respond(self, method: str, path: str, accept: str) -> tuple[HTTPStatus, str, bytes]:
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET\n"
        match path:
            case "/metrics":
                body, content_type = await self._exposition(accept)
                return HTTPStatus.OK, content_type, body
            case "/livez":
                return HTTPStatus.OK, "text/plain", b"ok\n"
            case "/readyz":
                return await self._ready()
            case "/startedz" if self._started():
                return HTTPStatus.OK, "text/plain", b"ok\n"
            case "/startedz":
                return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"not started, or draining\n"
            case _:
                return HTTPStatus.NOT_FOUND, "text/plain", b"not found\n"

    async def _exposition(self, accept: str) -> tuple[bytes, str]:
        """Returns one that was begun after it was asked for, shared with others that wait for it."""
        loop = asyncio.get_running_loop()
        asked_at, kind = loop.time(), str("application/openmetrics-text" in accept)
        async with self._writing:
            known = self._written.get(kind)
            if known is not None and known[0] > asked_at:
                return known[1]
            await asyncio.sleep(self._next_at - loop.time())
            began = loop.time()
            made = exposition(self._registry, accept)
            self._next_at = loop.time() + _EXPOSITION_PAUSE * (loop.time() - began)
            self._written[kind] = began, made
            return made

    async def _parts(self) -> Mapping[str, State]:
        try:
            async with asyncio.timeout(self._limits.check_seconds):
                return await self._readiness()
        except Exception as error:
            log.error("readiness_check_failed", exc_info=error)
            return {"readiness check": False}

    async def _ready(self) -> tuple[HTTPStatus, str, bytes]:
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._parts(), name="readiness check")
        parts = await asyncio.shield(self._check)
        warnings = {name: state for name, state in parts.items() if isinstance(state, str)}
        warnings |= {name: f"restarts after a fault ({fault})" for name, fault in restarting().items()}
        down = {name for name, state in parts.items() if state is False or isinstance(state, Down)}
        reasons = {name: state.why for name, state in parts.items() if isinstance(state, Down) and state.why}
        ready = not down
        words = {name: "unavailable" if name in down else "up" for name in parts}
        body: dict[str, object] = {"ready": ready, "parts": words | dict.fromkeys(warnings, "impaired")}
        if reasons:
            body["reasons"] = reasons
        if warnings:
            body["warnings"] = warnings
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "application/json", json.dumps(body).encode() + b"\n"


def read_request(data: bytes) -> tuple[str, str, str] | None:
    """Returns the method, the path without its query, and the `Accept` of a request; None where it is not HTTP/1.1."""
    head = data.decode("latin-1")
    line = _REQUEST_LINE.match(head)
    if line is None or not all(map(_HEADER_LINE.fullmatch, head.split("\r\n")[1:-2])):
        return None
    return line["method"], line["path"], _header(head, "accept")


async def _write(writer: asyncio.StreamWriter, method: str, status: HTTPStatus, content_type: str, body: bytes) -> None:
    """Returns once the system has taken all of the answer; to be bounded in time by who calls it."""
    writer.transport.set_write_buffer_limits(0)
    writer.write(
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode("latin-1")
    )
    if method != "HEAD":
        writer.write(body)
    await writer.drain()


def _header(head: str, name: str) -> str:
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
