"""The ASGI application: a dispatcher that serves routes with turns itself, and everything else by the framework."""

import itertools
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import REGISTRY, CollectorRegistry

from access.authenticator import Authenticator
from access.caller import CHAT, Caller
from chat_gateway.background import BackgroundTurns
from chat_gateway.clients.journal_client import JournalClient
from chat_gateway.clients.readiness import Readiness
from chat_gateway.clients.replicas import Replicas
from chat_gateway.clients.stubs import CONFIG_SVC, SESSION_SVC, Stubs
from chat_gateway.deletion import AgentDeletion
from chat_gateway.embedding import Embeddings
from chat_gateway.figures import Figures
from chat_gateway.finishing import FinishingTurns
from chat_gateway.http_edge.admin.application import admin_application
from chat_gateway.http_edge.admin.completions.preview import PREVIEW_PATH, ChatPreviews
from chat_gateway.http_edge.admin.responses.compact import COMPACT_PATH, Compactions
from chat_gateway.http_edge.admin.routing import HELD_BYTES, VERB
from chat_gateway.http_edge.console.files import CONSOLE_PATH, ConsoleFiles
from chat_gateway.http_edge.dependencies import DEPENDENCIES, Dependencies, HttpSettings
from chat_gateway.http_edge.openai.chat.handler import ChatCompletions
from chat_gateway.http_edge.openai.chat.operation import CHAT_PATH
from chat_gateway.http_edge.openai.embeddings.handler import EmbeddingsHandler
from chat_gateway.http_edge.openai.embeddings.operation import EMBEDDINGS_PATH
from chat_gateway.http_edge.openai.responses.handler import Responses
from chat_gateway.http_edge.openai.responses.operation import RESPONSES_PATH
from chat_gateway.http_edge.wire.auth import Authorizer
from chat_gateway.http_edge.wire.bodies import too_large
from chat_gateway.http_edge.wire.connection_handle import connection_of
from chat_gateway.http_edge.wire.context import CLIENT_GONE, RequestContext, set_current_request
from chat_gateway.http_edge.wire.errors import (
    MethodNotAllowed,
)
from chat_gateway.http_edge.wire.metrics import RequestDurations
from chat_gateway.http_edge.wire.refusal import refuse
from chat_gateway.http_edge.wire.turn_headers import REQUEST_HEADERS
from chat_gateway.instances import Instances
from chat_gateway.model.errors import TurnQueueFull
from chat_gateway.ports import Configs, ToolServerTests
from chat_gateway.preview import PromptPreview
from servicekit import traces
from servicekit.channels import Peer
from servicekit.errors import InvalidArgument, ServiceError, Violation
from servicekit.logs import SampledLines

_TRACE_CONTEXT = frozenset({traces.TRACEPARENT.encode(), traces.TRACESTATE.encode()})
_READ_HEADERS = frozenset((*REQUEST_HEADERS, b"authorization", b"content-length", b"content-encoding", b"x-request-id"))
_GIVEN_ONCE = frozenset((*_READ_HEADERS, b"a2a-version", b"host", b"content-type", b"if-match", b"origin"))
"""Headers that decide something. Duplicates are refused: other parties may have used either."""
_READS = frozenset({"GET", "HEAD"})
"""Methods with which the stored completions are listed, where POST makes one."""
_QUIET = frozenset({"/livez", "/readyz", "/startedz", "/metrics", CONSOLE_PATH})
"""Routes whose requests are worth a line only to who looks for them."""
A2A_PREFIX = "/a2a/"
_MAX_LINES = 10
_MAX_REQUEST_ID = 128
_COLLECTION_DEPTH = 2  # /v1/sessions
_RETRY_AFTER = 1.0

TurnRoute = Callable[[RequestContext, Caller], Awaitable[int]]
"""Serves a POST that asks for a model, and returns the status that it was answered with."""

A2ARoute = Callable[[Scope, RequestContext], Awaitable[tuple[str, int]]]
"""Serves what is under `A2A_PREFIX`, and returns the route and the status that it was answered with."""

log = structlog.get_logger("chat_gateway.http")


def build_app(
    turns: FinishingTurns,
    stubs: Stubs,
    deletion: AgentDeletion,
    instances: Instances,
    readiness: Readiness,
    settings: HttpSettings | None = None,
    *,
    configs: Configs,
    tool_servers: ToolServerTests,
    journals: JournalClient,
    authenticator: Authenticator | None = None,
    embeddings: Embeddings | None = None,
    preview: PromptPreview | None = None,
    figures: Figures | None = None,
    replicas: Replicas | None = None,
    console: ConsoleFiles | None = None,
    a2a: Callable[[Authorizer, HttpSettings], A2ARoute] | None = None,
    background: BackgroundTurns | None = None,
    registry: CollectorRegistry = REGISTRY,
) -> ASGIApp:
    """Returns the gateway's HTTP edge as an ASGI application. It starts no tasks and owns no connections.

    Without an `authenticator` every caller is anonymous and may do everything; without a `console` there is none.
    """
    bounds = settings or HttpSettings()
    authorizer = Authorizer(authenticator)
    deps = Dependencies(
        stubs=stubs,
        config_svc=Peer(CONFIG_SVC, bounds.rpc_timeout),
        session_svc=Peer(SESSION_SVC, bounds.rpc_timeout),
        configs=configs,
        deletion=deletion,
        instances=instances,
        readiness=readiness,
        settings=bounds,
        registry=registry,
        tool_servers=tool_servers,
        figures=figures or Figures(registry),
        replicas=replicas or Replicas(),
        authorizer=authorizer,
        authenticated=authenticator is not None,
        journals=journals,
        background=background,
    )
    turn_routes: dict[str, TurnRoute] = {
        CHAT_PATH: ChatCompletions(turns, bounds, background).serve,
        RESPONSES_PATH: Responses(turns, bounds, background, journals).serve,
        COMPACT_PATH: Compactions(turns, deps).serve,
    }
    if embeddings is not None:
        turn_routes[EMBEDDINGS_PATH] = EmbeddingsHandler(embeddings, bounds).serve
    if preview is not None:
        turn_routes[PREVIEW_PATH] = ChatPreviews(preview, bounds).serve
    a2a_route = None if a2a is None else a2a(authorizer, bounds)
    return _Edge(turn_routes, deps, RequestDurations(registry), console, a2a_route).serve


class _Edge:
    """Gives every request an id, measures it, and passes it on."""

    def __init__(
        self,
        turn_routes: Mapping[str, TurnRoute],
        dependencies: Dependencies,
        durations: RequestDurations,
        console: ConsoleFiles | None = None,
        a2a: A2ARoute | None = None,
    ) -> None:
        self._turn_routes = turn_routes
        self._admin = admin_application()
        self._dependencies = dependencies
        self._authorizer = dependencies.authorizer
        self._settings = dependencies.settings
        self._durations = durations
        self._console = console
        self._a2a = a2a
        self._id_prefix = secrets.token_hex(6).encode()
        self._ids = itertools.count(1)
        self._turn_requests = 0
        self._lines: dict[tuple[str, int], SampledLines] = {}

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection event (ASGI 3)."""
        if scope["type"] != ScopeType.HTTP:
            await self._admin(scope, receive, send)
        elif traces.on():
            await self._serve_traced(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve_traced(self, scope: Any, receive: Receive, send: Send) -> None:
        method = scope["method"]
        carrier = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _TRACE_CONTEXT}
        with traces.span(method, "server", {"http.request.method": method}, carrier=carrier) as span:
            route, status = await self._serve(scope, receive, send)
            span.rename(f"{method} {route}")
            span.set("http.route", route)
            span.set("http.response.status_code", status)

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> tuple[str, int]:
        """Returns the route and the status it was answered with."""
        start = time.perf_counter()
        given = [pair for pair in scope["headers"] if pair[0] in _GIVEN_ONCE]
        headers = dict(given)
        client = scope["client"]
        source = "" if client is None else client[0]
        context = RequestContext(self._request_id(headers), headers, connection_of(scope), receive, send, source)
        path, method = scope["path"], scope["method"]
        listed = path == CHAT_PATH and method in _READS
        turn_route = None if listed else self._turn_routes.get(path)
        route = "unknown" if turn_route is None else path
        a2a = self._a2a if turn_route is None and path.startswith(A2A_PREFIX) else None
        is_admin = turn_route is None and a2a is None
        limit = self._settings.max_admin_body_bytes if is_admin else self._settings.max_body_bytes
        try:
            length = headers.get(b"content-length")
            if len(headers) < len(given):
                status = await refuse(_given_twice(given), context)
            elif length is not None and int(length) > limit:
                status = await refuse(too_large(limit), context)
            elif turn_route is not None:
                status = await self._serve_turn(turn_route, path, method, context)
            elif self._console is not None and self._console.takes(path):
                route, status = CONSOLE_PATH, await self._console.serve(scope, context)
            elif a2a is not None:
                route, status = await self._serve_a2a(a2a, scope, context)
            else:
                route, status = await self._serve_admin(scope, context)
        except BaseException:
            self._durations.observe(route, method, 500, time.perf_counter() - start)
            raise
        seconds = time.perf_counter() - start
        self._durations.observe(route, method, status, seconds)
        if self._settings.access_log or turn_route is None or status >= 500:
            self._log(route, method, status, seconds, context)
        return route, status

    def _log(self, route: str, method: str, status: int, seconds: float, context: RequestContext) -> None:
        lines = self._lines.get((route, status))
        if lines is None:
            lines = self._lines[route, status] = SampledLines(_MAX_LINES)
        if lines.take():
            _log_request(route, method, status, seconds, context, lines.left_out())

    async def _serve_turn(self, serve: TurnRoute, path: str, method: str, context: RequestContext) -> int:
        if method != "POST":
            allowed = "POST, GET" if path == CHAT_PATH else "POST"
            return await refuse(MethodNotAllowed(method, path, allowed), context)
        # The scheduler bounds turns only once their requests are read: requests being read need a bound of their own.
        limit = self._settings.max_requests
        if self._turn_requests >= limit:
            return await refuse(TurnQueueFull("gateway", limit, _RETRY_AFTER), context)
        authorization = context.headers.get(b"authorization")
        try:
            caller = await self._authorizer.authorize(
                None if authorization is None else authorization.decode("latin-1"), CHAT, context.source
            )
        except ServiceError as error:
            return await refuse(error, context)
        self._turn_requests += 1
        try:
            return await serve(context, caller)
        finally:
            self._turn_requests -= 1

    async def _serve_a2a(self, serve: A2ARoute, scope: Any, context: RequestContext) -> tuple[str, int]:
        limit = self._settings.max_requests
        if self._turn_requests >= limit:
            return A2A_PREFIX, await refuse(TurnQueueFull("gateway", limit, _RETRY_AFTER), context)
        self._turn_requests += 1
        try:
            return await serve(scope, context)
        finally:
            self._turn_requests -= 1

    async def _serve_admin(self, scope: Any, context: RequestContext) -> tuple[str, int]:
        status = CLIENT_GONE

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", context.id)]
            await context.send(message)

        set_current_request(context)
        routed = _as_routed(scope)
        routed[DEPENDENCIES] = self._dependencies
        try:
            await self._admin(routed, context.receive, send_with_id)
        finally:
            self._settings.memory.release(routed.get(HELD_BYTES, 0))
        route = routed.get("path_template", "")
        return str(route).replace(f"/{VERB}", ":") or "unknown", status

    def _request_id(self, headers: Mapping[bytes, bytes]) -> bytes:
        sent = headers.get(b"x-request-id")
        if sent and len(sent) <= _MAX_REQUEST_ID and sent.isascii() and sent.decode().isprintable():
            return sent
        return b"%b-%x" % (self._id_prefix, next(self._ids))


def _as_routed(scope: Any) -> Any:
    """Returns the scope as the framework routes it: HEAD as GET (RFC 9110, 9.3.2), custom verbs as a segment.

    A session's id may look like one with a verb, so below a collection only POST has verbs.
    """
    routed = dict(scope)
    if routed["method"] == "HEAD":
        routed["method"] = "GET"
    target, colon, verb = routed["path"].rpartition(":")
    if colon and verb.isalpha() and (routed["method"] == "POST" or target.count("/") == _COLLECTION_DEPTH):
        routed["path"] = f"{target}/{VERB}{verb}"
    return routed


def _given_twice(headers: list[tuple[bytes, bytes]]) -> InvalidArgument:
    count = Counter(name for name, _ in headers)
    twice = [name.decode().title().replace("-Id", "-ID") for name in count if count[name] > 1]
    return InvalidArgument([Violation(name, "must be given once") for name in twice])


def _log_request(
    route: str, method: str, status: int, seconds: float, context: RequestContext, left_out: Mapping[str, int]
) -> None:
    write = log.debug if route in _QUIET else log.info
    write(
        "request",
        route=route,
        method=method,
        status=status,
        ms=round(seconds * 1e3, 2),
        request_id=context.id.decode("latin-1"),
        **left_out,
    )
