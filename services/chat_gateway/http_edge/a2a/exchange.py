"""One A2A request over HTTP and its response, with errors in the format of its binding."""

import json
from collections.abc import Callable
from typing import Any, Final

from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import MessageToDict

from chat_gateway.a2a.errors import details, in_words_of_protocol, json_rpc_code, rest_error
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.turn_exchange import Exchange
from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.errors import error_headers, http_status
from chat_gateway.http_edge.wire.limit_headers import Headers
from chat_gateway.http_edge.wire.sse import EventStream, event
from servicekit.errors import Code, ServiceError

REST_TYPE: Final = b"application/a2a+json"
_ALWAYS_BY_STATUS: Final = frozenset({Code.UNAUTHENTICATED, Code.PERMISSION_DENIED})
"""What an answer of JSON-RPC says by its status, too."""


class A2AExchange(Exchange):
    """One request. `rpc` has the id of a JSON-RPC request once it is known; it is None for REST."""

    __slots__ = ("route", "rpc")

    def __init__(self, context: RequestContext, settings: HttpSettings, rpc: dict[str, Any] | None) -> None:
        super().__init__(context, settings, lambda field: field)
        self.rpc = rpc
        self.route = "unknown"

    async def not_modified(self, headers: Headers) -> None:
        """Says that what the client has is what it would get."""
        self.status = 304
        await self._context.send({"type": "http.response.start", "status": 304, "headers": headers})
        await self._context.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def respond(self, result: Any) -> None:
        """Answers with a message."""
        document = _document(result)
        if self.rpc is None:
            self.status = 200
            await self._send(200, _dump(document), REST_TYPE)
        else:
            await self.answer(_dump({"jsonrpc": "2.0", "id": self.rpc["id"], "result": document}), [])

    def events(self) -> "A2AStream":
        """Returns the stream that the answer is."""
        settings = self._settings
        self._stream = EventStream(self._context, settings.keep_alive_interval, settings.write_timeout, self._leave)
        return A2AStream(self._stream, self._wrapped)

    async def end(self) -> None:
        """Ends the stream."""
        self._unwatch()
        assert self._stream is not None, "the answer is a stream"
        await self._stream.end(b"")
        self.status = 200

    async def _answer_error(self, error: ServiceError) -> None:
        error = in_words_of_protocol(error)
        status = http_status(error)
        if self.rpc is None:
            body, kind = rest_error(error, status), REST_TYPE
        else:
            failure = {"code": json_rpc_code(error), "message": error.message, "data": details(error)}
            body, kind = {"jsonrpc": "2.0", "id": self.rpc["id"], "error": failure}, b"application/json"
            status = status if error.code in _ALWAYS_BY_STATUS else 200
        self.status = status
        if self._stream is not None and self._stream.begun:
            await self._stream.end(event(_dump(body)))
        else:
            await self._send(status, _dump(body), kind, error_headers(error))

    def _wrapped(self, message: pb.StreamResponse) -> bytes:
        document = MessageToDict(message)
        if self.rpc is not None:
            document = {"jsonrpc": "2.0", "id": self.rpc["id"], "result": document}
        return event(_dump(document))

    async def _send(self, status: int, body: bytes, kind: bytes, headers: Any = ()) -> None:
        head = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self._context.id),
            *headers,
        ]
        await self._context.send({"type": "http.response.start", "status": status, "headers": head})
        await self._context.send({"type": "http.response.body", "body": body, "more_body": False})


class A2AStream:
    """Server-sent events of a task."""

    def __init__(self, stream: EventStream, wrapped: Callable[[pb.StreamResponse], bytes]) -> None:
        self._stream = stream
        self._wrapped = wrapped
        self._open = False

    async def emit(self, message: pb.StreamResponse) -> None:
        """Sends one event; the first one begins the answer."""
        if not self._open:
            self._open = True
            self._stream.open([], b"")
        await self._stream.write(self._wrapped(message))


def _document(message: Any) -> dict[str, Any]:
    """Returns a message as JSON. Lists have all of their own fields, a last page's empty token too."""
    document: dict[str, Any] = MessageToDict(message)
    if isinstance(message, pb.ListTasksResponse):
        empty = {"tasks": [], "nextPageToken": "", "pageSize": 0, "totalSize": 0}
        return empty | document
    if isinstance(message, pb.ListTaskPushNotificationConfigsResponse):
        return {"configs": [], "nextPageToken": ""} | document
    return document


def _dump(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
