"""The HTTP of the MCP SDK, made by our own guarded client. Imports the SDK's: load it only where a server is used."""

import asyncio
import contextvars
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

import aiohttp
import httpx2

from chat_gateway.tools.credentials import Credentials, CredentialsRefused
from chat_gateway.tools.mcp_mirrored import Mirrored
from chat_gateway.tools.mcp_plain import CallAnswer, PlainCall, answer_of, learned
from chat_gateway.tools.server import MAX_RESULT_BYTES
from servicekit.egress import EgressDenied
from servicekit.egress_http import GuardedClient
from servicekit.json_width import ValueCount

MAX_REQUESTS = 16
"""HTTP requests of one call: itself, its cancellation, and its stream taken up again."""
MAX_VALUES = 100_000
"""Of an answer's JSON, or of one event of a stream: reading more takes longer than others may be held up."""

_NOTIFICATION_SECONDS = 2.0
"""For whatever has no answer: the SDK makes these one after the other, so one that hangs holds up all that follow."""
_UNASKED_BYTES_A_SECOND, _UNASKED_AHEAD_BYTES = 32 * 1024, 256 * 1024
"""What is read of a stream that belongs to no call, and how much at once: notifications cost the gateway's time."""
_STREAM_PAUSE_SECONDS = 1.0
"""Between two streams of notifications, whatever the server says of when to come back."""
_HEAD_SECONDS = 30.0
_DRAIN_SECONDS = 0.2
_OURS = frozenset({"host", "content-length", "connection", "user-agent", "accept-encoding", "transfer-encoding"})
_CODED = frozenset({b"content-encoding", b"transfer-encoding", b"content-length"})
_FAULT_CODE = -32098
_SESSION_HEADER = "mcp-session-id"


class Exchange:
    """What becomes of one call on the level of HTTP, and what its requests carry in addition."""

    def __init__(self, seconds: float, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.requests = 0
        self.received = True
        """Whether the server may have received the call."""
        self.terminated = False
        """Whether the server knows the session no more; it has not carried the call out then."""
        self.refused_session = False
        """Whether it was refused together with its session: some servers say so by 400, and in words of their own."""
        self.fault = ""
        self.late = False
        """Whether the fault is that it did not answer within the call's time."""
        self.broken = False
        """Whether the fault is a connection that was lost."""
        self.denied: EgressDenied | None = None
        self.request_id: int | None = None
        """The id that the call's request has, where it is not left to the SDK."""
        self.tool = ""
        """The tool that is called; empty for a listing."""
        self.handed_over: httpx2.Response | None = None
        """The answer to a request that was made without the SDK, for the SDK to read."""
        self._response: aiohttp.ClientResponse | None = None
        self._waiting: asyncio.Timeout | None = None

    def waits(self, waiting: asyncio.Timeout | None) -> None:
        """Notes what waits for the head of a response."""
        self._waiting = waiting

    def answers(self, response: aiohttp.ClientResponse) -> None:
        """Notes the response that is read now."""
        self._response = response

    def close(self) -> None:
        """Ends requests in progress."""
        self.deadline = 0.0
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())
        if self._response is not None:
            self._response.close()


exchange: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("mcp_exchange", default=None)
"""The SDK makes the requests of a call in tasks that have its caller's context."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Makes the SDK's requests by a guarded client, with the server's headers and credentials.

    What fails is an answer of status 503, which the SDK takes for the failure of one request; an exception would end
    the session and all its calls. `fault` is what failed last, in words that may follow the server's id.
    """

    def __init__(self, client: GuardedClient, headers: Mapping[str, str], credentials: Credentials) -> None:
        self._client = client
        self._headers = dict(headers)
        self._credentials = credentials
        self._plain: dict[str, PlainCall] = {}
        self.mirrored: Mirrored | None = None
        """Which arguments are headers, too; nothing for servers of an older protocol."""
        self._next_stream_at = 0.0
        self.fault = ""
        self.denied: EgressDenied | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        call = exchange.get()
        asks = b'"id":' in body and b'"method":' in body
        if call is not None and asks and call.handed_over is not None:
            answer, call.handed_over = call.handed_over, None
            answer.request = request
            return answer
        if call is None and request.method == "GET":
            await self._pace_stream()
        protocol = {name: value for name, value in request.headers.items() if name.lower() not in _OURS}
        url = str(request.url)
        response = await self._answered(request.method, url, protocol, body, call, asks)
        if isinstance(response, httpx2.Response):
            response.request = request
            return response
        if call is not None and call.tool and asks:
            if _is_json(response) and (plain := learned(url, protocol, body)) is not None:
                self._plain[call.tool] = plain
            else:
                self._plain.pop(call.tool, None)
        return _for_sdk(response, call if asks else None, request, endless=request.method == "GET" and call is None)

    async def _pace_stream(self) -> None:
        now = asyncio.get_running_loop().time()
        begins_at = max(now, self._next_stream_at)
        self._next_stream_at = begins_at + _STREAM_PAUSE_SECONDS
        await asyncio.sleep(begins_at - now)

    def forget(self) -> None:
        """Forgets how tools are called: they may have changed."""
        self._plain.clear()

    async def call_plainly(
        self, call: Exchange, request_id: int, arguments: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> CallAnswer | None:
        """Calls the exchange's tool without the SDK, by the request that it made for an earlier call of the same tool.

        None: no such call was answered in plain JSON, or this one was not. In the latter case the call was made, and
        its answer or failure is what the SDK gets for the request that it makes next in this exchange. Raises
        `TimeoutError` at the exchange's deadline.
        """
        plain = self._plain.get(call.tool)
        body = plain.body(request_id, arguments, meta) if plain is not None else None
        if plain is None or body is None:
            return None
        call.request_id = request_id
        headers = plain.headers
        if self.mirrored is not None:
            headers = {**headers, **self.mirrored.headers(call.tool, arguments)}
        response = await self._answered("POST", plain.url, headers, body, call, asks=True)
        if call.late:
            raise TimeoutError
        if isinstance(response, httpx2.Response):
            call.handed_over = response
            return None
        if not _is_json(response):
            self._plain.pop(call.tool, None)
            call.handed_over = _for_sdk(response, call, None)
            return None
        try:
            content = await _Body(response, call, endless=False).whole()
        except httpx2.StreamError as error:
            if call.late:
                raise TimeoutError from None
            call.handed_over = httpx2.Response(200, headers=_headers(response), stream=_Broken(str(error)))
            return None
        if (answer := answer_of(content, request_id)) is None:
            call.handed_over = httpx2.Response(200, headers=_headers(response), content=content)
        return answer

    async def _answered(
        self, method: str, url: str, protocol: Mapping[str, str], body: bytes, call: Exchange | None, asks: bool
    ) -> aiohttp.ClientResponse | httpx2.Response:
        """Returns the head of what was answered, or the failure as an answer."""
        if call is not None:
            call.requests += 1
            if call.requests > MAX_REQUESTS:
                return self._failed(call, "takes up its answer again and again")
        try:
            response = await self._send(method, url, protocol, body, call, asks)
        except CredentialsRefused as error:
            return self._failed(call, str(error), received=False)
        except EgressDenied as error:
            self.denied = error
            if call is not None:
                call.denied = error
            return self._failed(call, error.message, received=False)
        except TimeoutError:
            if call is not None and asks:
                call.late = True
            return self._failed(call, "did not answer in time")
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError):
            return self._failed(call, "can't be reached", received=False)
        except (aiohttp.ClientError, ValueError, OSError) as error:
            return self._failed(call, f"broke off the connection ({type(error).__name__})", broken=True)
        self._note(call, response, has_session=_SESSION_HEADER in protocol)
        if call is not None and asks:
            call.answers(response)
        return response

    async def _send(
        self, method: str, url: str, protocol: Mapping[str, str], body: bytes, call: Exchange | None, asks: bool
    ) -> aiohttp.ClientResponse:
        for attempt in range(2):
            credentials = await self._credentials.headers()
            headers = {**self._headers, **protocol, **credentials, **(call.headers if call is not None else {})}
            if call is not None and asks:
                ends = call.deadline
            else:
                seconds = _HEAD_SECONDS if asks or method == "GET" else _NOTIFICATION_SECONDS
                ends = asyncio.get_running_loop().time() + seconds
            async with asyncio.timeout_at(ends) as time:
                if call is not None and asks:
                    call.waits(time)
                try:
                    response = await self._client.send(method, url, headers=headers, body=body or None)
                finally:
                    if call is not None and asks:
                        call.waits(None)
            if attempt or response.status != 401 or not self._credentials.refused(credentials):
                return response
            response.close()
        raise AssertionError

    def _note(self, call: Exchange | None, response: aiohttp.ClientResponse, *, has_session: bool) -> None:
        if response.status in (401, 403):
            self.fault = f"refuses the gateway's credentials ({response.status})"
        elif response.status >= 400:
            self.fault = f"answered {response.status}"
        elif response.status >= 300:
            self.fault = f"answered {response.status}, a redirect to another origin"
        if call is None:
            return
        if response.status == 404 and has_session:
            call.terminated = True
        elif response.status == 400 and has_session:
            call.refused_session = True
        elif response.status >= 500 or response.status in (401, 403) or 300 <= response.status < 400:
            # A proxy answers like this for a server that has received the call and was lost.
            call.fault, call.broken = self.fault, response.status in (502, 503, 504)

    def _failed(
        self, call: Exchange | None, fault: str, *, received: bool = True, broken: bool = False
    ) -> httpx2.Response:
        self.fault = fault
        if call is not None:
            call.fault, call.received, call.broken = fault, received, broken
        error = {"jsonrpc": "2.0", "id": None, "error": {"code": _FAULT_CODE, "message": fault}}
        return httpx2.Response(503, headers={"content-type": "application/json"}, content=json.dumps(error).encode())


def _is_json(response: aiohttp.ClientResponse) -> bool:
    return response.status == 200 and response.content_type == "application/json"


def _headers(response: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    # As bytes: a server may send any, and httpx encodes text as ASCII only.
    return [(name, value) for name, value in response.raw_headers if name.lower() not in _CODED]


def _for_sdk(
    response: aiohttp.ClientResponse, call: Exchange | None, request: httpx2.Request | None, *, endless: bool = False
) -> httpx2.Response:
    return httpx2.Response(
        response.status, headers=_headers(response), stream=_Body(response, call, endless=endless), request=request
    )


class _Broken(httpx2.AsyncByteStream):
    """A body that could not be read."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def __aiter__(self) -> AsyncIterator[bytes]:
        raise httpx2.StreamError(self._why)
        yield b""


class _Body(httpx2.AsyncByteStream):
    """A response's body within bounds of bytes and of the call's time. A stream of notifications has neither.

    What belongs to no call is read slowly, beyond its first bytes: the server waits, not the gateway.
    """

    def __init__(self, response: aiohttp.ClientResponse, call: Exchange | None, *, endless: bool) -> None:
        self._response = response
        self._call = call
        self._left: float = float("inf") if endless else MAX_RESULT_BYTES
        self._has_events = response.content_type == "text/event-stream"
        self._values = ValueCount()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        paid_until = loop.time()
        while part := await self._part():
            yield part
            if self._call is None:
                paid_until = max(paid_until, loop.time()) + len(part) / _UNASKED_BYTES_A_SECOND
                await asyncio.sleep(paid_until - loop.time() - _UNASKED_AHEAD_BYTES / _UNASKED_BYTES_A_SECOND)

    async def whole(self) -> bytes:
        """Returns the whole body. Raises `httpx2.StreamError`."""
        parts: list[bytes] = []
        while part := await self._part():
            parts.append(part)
        return b"".join(parts)

    async def _part(self) -> bytes:
        """Returns what has arrived; nothing at the end."""
        content = self._response.content
        if content.at_eof():
            return b""
        try:
            async with asyncio.timeout_at(self._call.deadline if self._call is not None else None):
                part = await content.readany()
        except TimeoutError:
            if self._call is not None:
                self._call.late = True
            self._fault("did not answer in time")
        except aiohttp.ClientError:
            if self._call is not None:
                self._call.broken = True
            self._fault("broke off its answer")
        self._left -= len(part)
        if self._left < 0:
            self._fault(f"answers with more than {MAX_RESULT_BYTES >> 20} MiB")
        if self._is_too_wide(part):
            self._fault(f"answers with more than {MAX_VALUES} values")
        return part

    def _is_too_wide(self, part: bytes) -> bool:
        if self._has_events:
            before, end_of_event, part = part.rpartition(b"\n\n")
            if end_of_event:
                self._values.add(before)
                if self._values.exceeds(MAX_VALUES):
                    return True
                self._values = ValueCount()
        self._values.add(part)
        return self._values.exceeds(MAX_VALUES)

    async def aclose(self) -> None:
        # The event that the SDK waited for may come just before the end, after which the connection can be used again.
        try:
            if not self._response.content.at_eof() and self._response.status == 200 and self._left < float("inf"):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    while not self._response.content.at_eof() and self._left >= 0:
                        self._left -= len(await self._response.content.readany())
        except (TimeoutError, aiohttp.ClientError):
            pass
        finally:
            # What is read to its end has given its connection back; one that switched protocols never does.
            if self._response.connection is not None:
                self._response.close()

    def _fault(self, what: str) -> NoReturn:
        if self._call is not None:
            self._call.fault = self._call.fault or what
        self._response.close()
        raise httpx2.StreamError(what)
