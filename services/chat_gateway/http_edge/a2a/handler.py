"""/a2a/{agent}: the agent card, JSON-RPC by POST to the path itself, and REST below it."""

from typing import Any, Final

import msgspec

from access.binding import require
from access.caller import CHAT
from chat_gateway.a2a.calls import SCOPES, A2ACall, call_of, check_version
from chat_gateway.a2a.card import card_json
from chat_gateway.a2a.errors import InvalidRequest, MalformedJson, MethodNotFound
from chat_gateway.a2a.methods import Methods
from chat_gateway.http_edge.a2a.exchange import A2AExchange
from chat_gateway.http_edge.a2a.rest import STREAMED, operation_of, parsed, request_of, version_in
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.wire.auth import ANY_CREDENTIALS, Authorizer
from chat_gateway.http_edge.wire.bodies import check_values
from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.errors import MethodNotAllowed
from servicekit.errors import InvalidArgument, Violation

KEYS: Final = "/a2a/.well-known/jwks.json"
"""No agent has this id."""
CARD: Final = "/.well-known/agent-card.json"
_READS: Final = frozenset({"GET", "HEAD"})
_ENVELOPE: Final = frozenset({"jsonrpc", "id", "method", "params"})
_CARD_SECONDS: Final = 60
_MAX_ID: Final = 256
"""Characters of a request's id, which each event of its stream repeats."""
_KEY_SECONDS: Final = 300


class A2AHandler:
    """Answers A2A requests. Every request is served in its own task, which a client that leaves cancels."""

    def __init__(self, methods: Methods, authorizer: Authorizer, settings: HttpSettings) -> None:
        self._methods = methods
        self._authorizer = authorizer
        self._settings = settings

    async def serve(self, scope: Any, context: RequestContext) -> tuple[str, int]:
        """Serves one request; returns its route and the status that it was answered with."""
        if scope["path"] == KEYS:
            return KEYS, await self._keys(scope, context)
        agent, below = _split(scope["path"])
        rpc: dict[str, Any] | None = None if below else {"id": None}
        exchange = A2AExchange(context, self._settings, rpc)
        async with exchange:
            if below == CARD:
                await self._card(exchange, scope, context, agent)
            elif below:
                await self._rest(exchange, scope, context, agent, below)
            else:
                await self._json_rpc(exchange, scope, context, agent)
        return exchange.route, exchange.status

    async def _keys(self, scope: Any, context: RequestContext) -> int:
        """Receivers of push notifications verify them by these; they are for anybody."""
        exchange = A2AExchange(context, self._settings, None)
        async with exchange:
            if scope["method"] not in _READS:
                raise MethodNotAllowed(scope["method"], scope["path"], "GET")
            body = msgspec.json.encode(self._methods.jwks)
            await exchange.answer(body, [(b"cache-control", b"public, max-age=%d" % _KEY_SECONDS)])
        return exchange.status

    async def _card(self, exchange: A2AExchange, scope: Any, context: RequestContext, agent: str) -> None:
        exchange.route = f"/a2a/{{agent}}{CARD}"
        if scope["method"] not in _READS:
            raise MethodNotAllowed(scope["method"], scope["path"], "GET")
        require(await self._caller(context), CHAT)
        call = _call(agent, context)
        body, tag = card_json(await self._methods.cards.card(call, _base_url(scope)))
        headers = [
            (b"etag", tag.encode()),
            (b"cache-control", b"private, max-age=%d" % _CARD_SECONDS),
            (b"vary", b"authorization, x-project-id"),
        ]
        known = b"".join(text for name, text in scope["headers"] if name == b"if-none-match")
        if tag.encode() in known:
            await exchange.not_modified(headers)
        else:
            await exchange.answer(body, headers)

    async def _rest(self, exchange: A2AExchange, scope: Any, context: RequestContext, agent: str, below: str) -> None:
        operation, named = operation_of(scope["method"], below)
        exchange.route = f"/a2a/{{agent}}:{operation}"
        require(await self._caller(context), SCOPES[operation])
        body = await exchange.body()
        check_version(_version(scope, context))
        query = scope["query_string"]

        def read(body: bytes) -> Any:
            return request_of(operation, named, query, _json(body) if body else None)

        request = await exchange.converted(body, read)
        await self._operate(exchange, scope, operation, _call(agent, context), request)

    async def _json_rpc(self, exchange: A2AExchange, scope: Any, context: RequestContext, agent: str) -> None:
        exchange.route = "/a2a/{agent}"
        if scope["method"] != "POST":
            raise MethodNotAllowed(scope["method"], scope["path"], "POST")
        caller = await self._caller(context)
        body = await exchange.body()
        document = await exchange.converted(body, _json)
        exchange.rpc = {"id": _request_id(document)}
        operation = _method(document)
        if operation not in SCOPES:
            raise MethodNotFound(f"there is no method {operation[:100]}")
        require(caller, SCOPES[operation])
        check_version(_version(scope, context))
        fields = document.get("params") or {}
        request = await exchange.converted(body, lambda _: parsed(operation, fields))
        await self._operate(exchange, scope, operation, _call(agent, context), request)

    async def _operate(self, exchange: A2AExchange, scope: Any, operation: str, call: A2ACall, request: Any) -> None:
        if request.tenant not in ("", call.agent_id):
            raise InvalidArgument([Violation("tenant", "must be the agent of the path, or empty")])
        if operation in STREAMED:
            stream = exchange.events()
            await self._methods.streamed[operation](call, request, stream.emit)
            await exchange.end()
        else:
            answer = self._methods.answer(operation, call, request, _base_url(scope))
            await exchange.respond(await exchange.watched(answer))

    async def _caller(self, context: RequestContext) -> Any:
        authorization = context.headers.get(b"authorization")
        text = None if authorization is None else authorization.decode("latin-1")
        return await self._authorizer.authorize(text, ANY_CREDENTIALS, context.source)


def _split(path: str) -> tuple[str, str]:
    agent, slash, below = path.removeprefix("/a2a/").partition("/")
    return agent, slash + below if below else ""


def _call(agent: str, context: RequestContext) -> A2ACall:
    project = context.headers.get(b"x-project-id", b"").decode("latin-1")
    call = call_of(agent, project, context.headers.get(b"x-user-id", b"").decode("latin-1"))
    if not agent:
        raise InvalidArgument([Violation("agent", "is required in the path")])
    return call


def _version(scope: Any, context: RequestContext) -> str:
    said = context.headers.get(b"a2a-version")
    return version_in(scope["query_string"]) if said is None else said.decode("latin-1")


def _base_url(scope: Any) -> str:
    host = next((text for name, text in scope["headers"] if name == b"host"), b"")
    return f"{scope['scheme']}://{host.decode('latin-1')}"


def _json(body: bytes) -> Any:
    check_values(body)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson(f"the body is not JSON: {error}"[:300]) from None


def _request_id(document: Any) -> str | int | None:
    request_id = document.get("id") if isinstance(document, dict) else None
    if isinstance(request_id, bool) or not isinstance(request_id, str | int):
        return None
    return request_id if len(str(request_id)) <= _MAX_ID else None


def _method(document: Any) -> str:
    """Returns the method of a request of JSON-RPC 2.0. Raises `InvalidRequest`; `InvalidArgument` for its params."""
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be one request: a JSON object")
    if document.get("jsonrpc") != "2.0":
        raise InvalidRequest('jsonrpc must be "2.0"')
    if document.get("id") is not None and _request_id(document) is None:
        raise InvalidRequest(f"id must be text, a whole number or null, of at most {_MAX_ID} characters")
    method = document.get("method")
    if not isinstance(method, str) or not method:
        raise InvalidRequest("method is required")
    if unknown := sorted(document.keys() - _ENVELOPE):
        raise InvalidRequest(f"{unknown[0][:100]} is no member of a request")
    if not isinstance(document.get("params", {}), dict):
        raise InvalidArgument([Violation("params", "must be an object")])
    return method
