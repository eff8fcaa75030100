"""The ASGI application: one dispatcher, the hot route before the framework, everything else behind it."""

import itertools
import secrets
import time
from typing import Any

import structlog
from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import REGISTRY, CollectorRegistry

from access.authenticator import Authenticator
from access.caller import CHAT
from chat_gateway.clients.readiness import Readiness
from chat_gateway.clients.stubs import CONFIG_SVC, SESSION_SVC, Stubs
from chat_gateway.deletion import AgentDeletion
from chat_gateway.finishing import FinishingTurns
from chat_gateway.http_edge.admin.access.audit import audit_router
from chat_gateway.http_edge.admin.access.routes import access_router
from chat_gateway.http_edge.admin.agents.revisions import revisions_router
from chat_gateway.http_edge.admin.agents.routes import agents_router
from chat_gateway.http_edge.admin.agents.schema import in_our_names
from chat_gateway.http_edge.admin.docs import docs_file, docs_page, openapi_document
from chat_gateway.http_edge.admin.openapi import CHAT_PATH, CONFIG
from chat_gateway.http_edge.admin.process import process_router
from chat_gateway.http_edge.admin.routing import VERB, JsonRequest
from chat_gateway.http_edge.admin.sessions.routes import sessions_router
from chat_gateway.http_edge.admin.sessions.users import users_router
from chat_gateway.http_edge.dependencies import Dependencies, HttpSettings
from chat_gateway.http_edge.openai.chat.convert import HEADERS
from chat_gateway.http_edge.openai.chat.handler import CLIENT_GONE, Completions
from chat_gateway.http_edge.wire.auth import Admission, project_of_request, require_scopes
from chat_gateway.http_edge.wire.bodies import ClientGone, too_large
from chat_gateway.http_edge.wire.errors import (
    ErrorBody,
    MalformedBody,
    MethodNotAllowed,
    RouteNotFound,
    error_body,
    error_headers,
    http_status,
)
from chat_gateway.http_edge.wire.metrics import RequestDurations
from chat_gateway.http_edge.wire.protocol import LINE
from chat_gateway.http_edge.wire.refusal import refuse_body
from chat_gateway.instances import Instances
from chat_gateway.model.errors import TurnQueueFull
from servicekit import traces
from servicekit.channels import Peer
from servicekit.errors import Cancelled, Internal, InvalidArgument, ServiceError, Violation

_TRACE_CONTEXT = frozenset({traces.TRACEPARENT.encode(), traces.TRACESTATE.encode()})
_WANTED = frozenset((*HEADERS, b"authorization", b"content-length", b"x-request-id"))
_MAX_REQUEST_ID = 128
_COLLECTION_DEPTH = 2  # /v1/sessions
_RETRY_AFTER = 1.0

log = structlog.get_logger("chat_gateway.http")


def build_app(
    turns: FinishingTurns,
    stubs: Stubs,
    deletion: AgentDeletion,
    instances: Instances,
    readiness: Readiness,
    settings: HttpSettings | None = None,
    *,
    authenticator: Authenticator | None = None,
    registry: CollectorRegistry = REGISTRY,
) -> ASGIApp:
    """Returns the gateway's HTTP edge as an ASGI application. It starts and owns nothing but its requests' tasks.

    Without an `authenticator` every caller is anonymous and may do everything.
    """
    bounds = settings or HttpSettings()
    admission = Admission(authenticator)
    config_svc, session_svc = Peer(CONFIG_SVC, bounds.rpc_timeout), Peer(SESSION_SVC, bounds.rpc_timeout)
    deps = Dependencies(stubs, config_svc, session_svc, deletion, instances, readiness, bounds, registry)
    agents, sessions = (agents_router(), revisions_router()), (sessions_router(), users_router())
    routers = (*agents, *sessions, access_router(), audit_router(), process_router())
    admin = Litestar(
        [*routers, docs_page, openapi_document, docs_file],
        request_class=JsonRequest,
        dependencies={
            "deps": Provide(lambda: deps, sync_to_thread=False, use_cache=True),
            "project": Provide(project_of_request),
        },
        guards=[admission.guard],
        exception_handlers={Exception: _answer_error},
        openapi_config=CONFIG,
        state=State({"settings": bounds}),
        logging_config=None,
    )
    require_scopes(admin)
    return _Edge(Completions(turns, bounds), admin, admission, bounds, RequestDurations(registry)).serve


class _Edge:
    """Gives every request an id, measures it, and passes it on."""

    def __init__(
        self,
        completions: Completions,
        admin: Litestar,
        admission: Admission,
        settings: HttpSettings,
        durations: RequestDurations,
    ) -> None:
        self._completions = completions
        self._admin = admin
        self._admission = admission
        self._settings = settings
        self._durations = durations
        self._id_prefix = secrets.token_hex(6).encode()
        self._ids = itertools.count(1)
        self._completing = 0

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
        wanted = {name: value for name, value in scope["headers"] if name in _WANTED}
        request_id = self._request_id(wanted)
        hot = scope["path"] == CHAT_PATH
        method = scope["method"]
        route = CHAT_PATH
        try:
            length = wanted.get(b"content-length")
            if length is not None and int(length) > self._settings.max_body_bytes:
                status = await refuse_body(too_large(self._settings.max_body_bytes), request_id, receive, send)
            elif hot:
                status = await self._complete(scope, wanted, request_id, receive, send)
            else:
                status, route = await self._administer(scope, request_id, receive, send)
        except BaseException:
            self._durations.observe(route, method, 500, time.perf_counter() - start)
            raise
        seconds = time.perf_counter() - start
        self._durations.observe(route, method, status, seconds)
        if self._settings.access_log or not hot or status >= 500:
            _access(route, method, status, seconds, request_id)
        return route, status

    async def _complete(
        self, scope: Any, wanted: dict[bytes, bytes], request_id: bytes, receive: Receive, send: Send
    ) -> int:
        if scope["method"] != "POST":
            return await refuse_body(MethodNotAllowed(scope["method"], CHAT_PATH, "POST"), request_id, receive, send)
        # The scheduler bounds turns only once their requests are read: what is being read needs a bound of its own.
        limit = self._settings.max_requests
        if self._completing >= limit:
            return await refuse_body(TurnQueueFull("gateway", limit, _RETRY_AFTER), request_id, receive, send)
        given = wanted.get(b"authorization")
        authorization = None if given is None else given.decode("latin-1")
        try:
            caller = await self._admission.admit(authorization, CHAT)
        except ServiceError as error:
            return await refuse_body(error, request_id, receive, send)
        fields = {HEADERS[name]: value.decode("latin-1") for name, value in wanted.items() if name in HEADERS}
        self._completing += 1
        try:
            return await self._completions.answer(caller, fields, request_id, scope[LINE], receive, send)
        finally:
            self._completing -= 1

    async def _administer(self, scope: Any, request_id: bytes, receive: Receive, send: Send) -> tuple[int, str]:
        status = CLIENT_GONE

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        inner = _as_routed(scope)
        inner["request_id"] = request_id.decode("latin-1")
        await self._admin(inner, receive, send_with_id)
        route = inner.get("path_template", "")
        return status, str(route).replace(f"/{VERB}", ":") or "unknown"

    def _request_id(self, wanted: dict[bytes, bytes]) -> bytes:
        given = wanted.get(b"x-request-id")
        if given and len(given) <= _MAX_REQUEST_ID and given.isascii() and given.decode().isprintable():
            return given
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


def _access(route: str, method: str, status: int, seconds: float, request_id: bytes) -> None:
    write = log.debug if route in ("/livez", "/readyz", "/metrics") else log.info
    write(
        "request",
        route=route,
        method=method,
        status=status,
        ms=round(seconds * 1e3, 2),
        request_id=request_id.decode("latin-1"),
    )


def _answer_error(request: Request[Any, Any, Any], exception: Exception) -> Response[ErrorBody]:
    """Answers what a route raised, in our form."""
    error = _as_service_error(request, exception)
    headers = {name.decode(): value.decode("latin-1") for name, value in error_headers(error)}
    if error.reason == "MESSAGE_TOO_LARGE":
        headers["connection"] = "close"
    return Response(error_body(error), status_code=http_status(error), headers=headers, media_type="application/json")


def _as_service_error(request: Request[Any, Any, Any], exception: Exception) -> ServiceError:
    match exception:
        case ServiceError():
            return in_our_names(exception)
        case ValidationException():
            return _invalid(exception)
        case MethodNotAllowedException():
            allowed = (exception.headers or {}).get("allow", "")
            return MethodNotAllowed(request.method, request.url.path, allowed)
        case NotFoundException():
            return RouteNotFound(request.method, request.url.path)
        case ClientGone():
            return Cancelled("the client left")
        case HTTPException() if exception.status_code < 500:
            return InvalidArgument(message=exception.detail)
        case _:
            request_id = dict(request.scope).get("request_id")
            log.error("unexpected exception", request_id=request_id, exc_info=exception)
            return Internal()


def _invalid(exception: ValidationException) -> ServiceError:
    """Turns the framework's complaints about parameters, or a body that is missing, into violations."""
    extra = exception.extra if isinstance(exception.extra, list) else []
    if any(item.get("source") == "body" for item in extra):
        return MalformedBody("the request needs a JSON body")
    violations = [Violation(item.get("key", ""), item.get("message", "is not valid")) for item in extra]
    return InvalidArgument(violations or [Violation("", exception.detail)])
