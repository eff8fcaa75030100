"""The HTTP of the MCP SDK, made by our own guarded client. Imports the SDK's: load it only where a server is used."""

import asyncio
import contextvars
import json
from collections.abc import AsyncIterator, Mapping

import aiohttp
import httpx2

from chat_gateway.tools.credentials import Credentials, CredentialsRefused
from chat_gateway.tools.server import MAX_RESULT_BYTES
from servicekit.egress import EgressDenied
from servicekit.egress_http import GuardedClient

MAX_REQUESTS = 16
"""HTTP requests of one call: itself, its cancellation, and its stream taken up again."""

_NOTIFICATION_SECONDS = 2.0
"""For whatever has no answer: the SDK makes these one after the other, so one that hangs holds up all that follow."""
_HEAD_SECONDS = 30.0
_DRAIN_SECONDS = 0.2
_OURS = frozenset({"host", "content-length", "connection", "user-agent", "accept-encoding", "transfer-encoding"})
_FAULT_CODE = -32098


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
        self.broken = False
        """Whether the fault is a connection that was lost."""
        self.denied: EgressDenied | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._waiting: asyncio.Timeout | None = None

    def waits(self, waiting: asyncio.Timeout | None) -> None:
        """Notes what waits for the head of a response."""
        self._waiting = waiting

    def answers(self, response: aiohttp.ClientResponse) -> None:
        """Notes the response that is read now."""
        self._response = response

    def close(self) -> None:
        """Ends what is under way: nobody waits for it any more."""
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
        self.fault = ""
        self.denied: EgressDenied | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        call = exchange.get()
        asks = b'"id":' in body and b'"method":' in body
        if call is not None:
            call.requests += 1
            if call.requests > MAX_REQUESTS:
                return self._failed(call, "takes up its answer again and again")
        try:
            response = await self._send(request, body, call, asks)
        except CredentialsRefused as error:
            return self._failed(call, str(error), received=False)
        except EgressDenied as error:
            self.denied = error
            if call is not None:
                call.denied = error
            return self._failed(call, error.message, received=False)
        except TimeoutError:
            return self._failed(call, "did not answer in time")
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError):
            return self._failed(call, "can't be reached", received=False)
        except (aiohttp.ClientError, ValueError, OSError) as error:
            return self._failed(call, f"broke off the connection ({type(error).__name__})", broken=True)
        self._note(call, response, has_session="mcp-session-id" in request.headers)
        if call is not None and asks:
            call.answers(response)
        return httpx2.Response(
            response.status,
            headers=[(name, value) for name, value in response.headers.items() if name.lower() != "content-encoding"],
            stream=_Body(response, call if asks else None, endless=request.method == "GET" and call is None),
            request=request,
        )

    async def _send(
        self, request: httpx2.Request, body: bytes, call: Exchange | None, asks: bool
    ) -> aiohttp.ClientResponse:
        protocol = {name: value for name, value in request.headers.items() if name.lower() not in _OURS}
        for attempt in range(2):
            credentials = await self._credentials.headers()
            headers = {**self._headers, **protocol, **credentials, **(call.headers if call is not None else {})}
            seconds = _HEAD_SECONDS if asks or request.method == "GET" else _NOTIFICATION_SECONDS
            async with asyncio.timeout(seconds) as time:
                if call is not None and asks:
                    time.reschedule(call.deadline)
                    call.waits(time)
                try:
                    response = await self._client.send(
                        request.method, str(request.url), headers=headers, body=body or None
                    )
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
            # What stands before a server answers so for one that has got the call and was lost.
            call.fault, call.broken = self.fault, response.status in (502, 503, 504)

    def _failed(
        self, call: Exchange | None, fault: str, *, received: bool = True, broken: bool = False
    ) -> httpx2.Response:
        self.fault = fault
        if call is not None:
            call.fault, call.received, call.broken = fault, received, broken
        error = {"jsonrpc": "2.0", "id": None, "error": {"code": _FAULT_CODE, "message": fault}}
        return httpx2.Response(503, headers={"content-type": "application/json"}, content=json.dumps(error).encode())


class _Body(httpx2.AsyncByteStream):
    """A response's body within bounds of bytes and of the call's time. A stream of notifications has neither."""

    def __init__(self, response: aiohttp.ClientResponse, call: Exchange | None, *, endless: bool) -> None:
        self._response = response
        self._call = call
        self._left: float = float("inf") if endless else MAX_RESULT_BYTES

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while True:
                async with asyncio.timeout_at(self._call.deadline if self._call is not None else None):
                    part = await content.readany()
                if not part:
                    return
                self._left -= len(part)
                if self._left < 0:
                    self._fault(f"answers with more than {MAX_RESULT_BYTES >> 20} MiB")
                yield part
        except TimeoutError:
            self._fault("did not answer in time")
        except aiohttp.ClientError:
            if self._call is not None:
                self._call.broken = True
            self._fault("broke off its answer")

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
            if not self._response.content.at_eof():
                self._response.close()

    def _fault(self, what: str) -> None:
        if self._call is not None:
            self._call.fault = self._call.fault or what
        self._response.close()
        raise httpx2.StreamError(what)
