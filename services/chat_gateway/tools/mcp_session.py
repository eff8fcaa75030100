"""One session with an MCP server, by the official SDK. Importing this imports the SDK, 13 MB: only where it is used."""

import asyncio
import contextlib
import contextvars
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import anyio
import httpx2
import mcp_types as types
from mcp.client._probe import negotiate_auto
from mcp.client._transport import TransportStreams
from mcp.client.session import ClientSession, IncomingMessage
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost, listen
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.transport_context import TransportContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from chat_gateway.tools.credentials import Credentials
from chat_gateway.tools.mcp_http import Exchange, GuardedTransport, exchange
from chat_gateway.tools.mcp_mirrored import Mirrored
from chat_gateway.tools.mcp_plain import CallAnswer
from chat_gateway.tools.mcp_results import as_text
from chat_gateway.tools.offered import MAX_LISTED, OfferedTool
from chat_gateway.tools.server import MAX_RESULT_BYTES, ServerUnavailable
from servicekit.backoff import Backoff
from servicekit.egress import EgressDenied
from servicekit.egress_http import GuardedClient
from servicekit.version import release

__all__ = ["MCPError", "McpSession", "Mirrored", "ValidationError", "exchanging", "http_streams", "types"]

MAX_PAGES = 256
_CLOSE_SECONDS = 7.0
"""Longer than a command takes to be killed."""
_REQUEST_SECONDS = 30.0
_ABANDON_SECONDS = 5.0
_FIRST_ID = 1 << 30
"""Of the calls' requests; the SDK numbers its own from 1."""

_RESULT: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)

# What the SDK logs holds what was sent and answered, secrets that a server sends back among it.
for _name in ("mcp", "client", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class Faults:
    """Why no session could be opened, in words that may follow the server's id."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self.read: Callable[[], str] = str
        self.denied: Callable[[], EgressDenied | None] = lambda: None
        self.transport: GuardedTransport | None = None
        """What makes the session's requests, where it is HTTP."""
        self._on_lost = on_lost

    def lost(self, why: str) -> None:
        """Notes that nothing will come of the session any more."""
        self.read = lambda: why
        self._on_lost()


Streams = Callable[[Faults], AbstractAsyncContextManager[TransportStreams]]


def http_streams(client: GuardedClient, url: str, headers: Mapping[str, str], credentials: Credentials) -> Streams:
    """Returns what opens the streams of a server over streamable HTTP."""

    @asynccontextmanager
    async def streams(faults: Faults) -> AsyncIterator[TransportStreams]:
        transport = GuardedTransport(client, headers, credentials)
        faults.read = lambda: transport.fault
        faults.denied = lambda: transport.denied
        faults.transport = transport
        async with (
            httpx2.AsyncClient(transport=transport, timeout=None, trust_env=False) as http,
            streamable_http_client(url, http_client=http, max_sse_event_size=2 * MAX_RESULT_BYTES) as opened,
        ):
            yield opened

    return streams


@contextlib.contextmanager
def exchanging(seconds: float, headers: Mapping[str, str]) -> Iterator[Exchange]:
    """Observes what the requests do that are made meanwhile, and ends those that are left at the end."""
    observed = Exchange(seconds, headers)
    token = exchange.set(observed)
    try:
        yield observed
    finally:
        exchange.reset(token)
        observed.close()


class _Dispatcher(JSONRPCDispatcher[TransportContext]):
    """The SDK's, whose requests have the id that their exchange says.

    The SDK mirrors arguments in headers for tools that the same session has listed: here all that are known are.
    """

    mirrored: Mirrored | None = None

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None, **more: Any
    ) -> dict[str, Any]:
        observed = exchange.get()
        if observed is not None and observed.request_id is not None and method == "tools/call":
            opts = {**(opts or {}), "request_id": observed.request_id}
        if self.mirrored is not None and method == "tools/call" and params is not None:
            headers = self.mirrored.headers(params["name"], params.get("arguments") or {})
            if headers:
                opts = {**(opts or {}), "headers": {**((opts or {}).get("headers") or {}), **headers}}
        return await super().send_raw_request(method, params, opts, **more)


class McpSession:
    """A session that one task opens, keeps and closes: cancel scopes must be left by the task that entered them.

    `on_changed` is called when the server's tools may have changed; `mirrored` is what was learned of them before.
    """

    def __init__(
        self,
        name: str,
        streams: Streams,
        *,
        connect_seconds: float,
        on_changed: Callable[[], None],
        mirrored: Mirrored | None = None,
    ) -> None:
        self._mirrored = mirrored if mirrored is not None else Mirrored()
        self._connect_seconds = connect_seconds
        self._on_changed = on_changed
        self._closing = asyncio.Event()
        self._faults = Faults(self._closing.set)
        self._session: ClientSession | None = None
        # Its cancellation, unlike the task's, leaves a command the time to be ended.
        self._negotiating = anyio.CancelScope()
        self._ids = itertools.count(_FIRST_ID)
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        # In a separate context, because the session outlives the turn that opens it.
        self._owner = asyncio.get_running_loop().create_task(
            self._own(streams), name=f"mcp session {name}", context=contextvars.Context()
        )

    @property
    def ended(self) -> bool:
        """Whether it can't be used any more."""
        return self._owner.done() or self._closing.is_set()

    @property
    def lost(self) -> str:
        """Why it ended, in words that may follow the server's id; empty where that is not known."""
        return self._faults.read() if self.ended else ""

    async def opened(self) -> None:
        """Waits until it can be used. Raises `ServerUnavailable` and `EgressDenied`."""
        await asyncio.shield(self._ready)

    async def tools(self) -> list[OfferedTool]:
        """Returns the tools of all pages, as far as they are within the bounds. Raises as the SDK does."""
        session = self._usable()
        if self._faults.transport is not None:
            self._faults.transport.forget()
        found: list[types.Tool] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            page = await session.list_tools(params=types.PaginatedRequestParams(cursor=cursor) if cursor else None)
            found += page.tools
            cursor = page.next_cursor
            if not cursor or cursor in seen or len(found) > MAX_LISTED:
                break
            seen.add(cursor)
        self._mirrored.learn(found)
        return list(map(_offered, found))

    async def call(
        self, name: str, arguments: Mapping[str, Any], meta: Mapping[str, Any], seconds: float
    ) -> CallAnswer | None:
        """Calls a tool; None: it wants input while it runs. Raises as the SDK does; cancelling it tells the server."""
        session, transport, exchanged = self._usable(), self._faults.transport, exchange.get()
        if transport is not None and exchanged is not None:
            exchanged.tool = name
            request_id = next(self._ids)
            try:
                answer = await transport.call_plainly(exchanged, request_id, arguments, meta)
            except asyncio.CancelledError:
                await self._abandon(session, request_id)
                raise
            except TimeoutError:
                await self._abandon(session, request_id)
                raise MCPError(code=types.REQUEST_TIMEOUT, message="timed out") from None
            if answer is not None:
                return answer
            seconds = max(exchanged.deadline - asyncio.get_running_loop().time(), 0.001)
        return await self._call_by_sdk(session, name, arguments, meta, seconds)

    async def _call_by_sdk(
        self, session: ClientSession, name: str, arguments: Mapping[str, Any], meta: Mapping[str, Any], seconds: float
    ) -> CallAnswer | None:
        # Not `call_tool`, which checks results against the server's own schemas, at a cost that they decide on.
        params = types.CallToolRequestParams(
            name=name, arguments=dict(arguments), _meta=cast("types.RequestParamsMeta", dict(meta))
        )
        answer = await session.send_request(
            types.CallToolRequest(params=params), _RESULT, request_read_timeout_seconds=seconds
        )
        if isinstance(answer, types.InputRequiredResult):
            return None
        return CallAnswer(as_text(answer.content, answer.structured_content), bool(answer.is_error))

    async def _abandon(self, session: ClientSession, request_id: int) -> None:
        """Notifies a server of an older protocol of the cancellation; for a newer one, closing the connection does."""
        if session.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return
        params = types.CancelledNotificationParams(request_id=request_id)
        with contextlib.suppress(TimeoutError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with asyncio.timeout(_ABANDON_SECONDS):
                await session.send_notification(types.CancelledNotification(params=params))

    async def close(self) -> None:
        """Ends the session, within a bound of time; one that is not open yet, at once. Idempotent."""
        self._closing.set()
        self._negotiating.cancel()
        done, _ = await asyncio.wait([self._owner], timeout=_CLOSE_SECONDS)
        if not done:
            self._owner.cancel()
            await asyncio.wait([self._owner], timeout=_CLOSE_SECONDS)

    def _usable(self) -> ClientSession:
        if self._session is None or self.ended:
            raise MCPError(code=types.CONNECTION_CLOSED, message="the session has ended")
        return self._session

    async def _own(self, streams: Streams) -> None:
        faults = self._faults
        try:
            async with (
                streams(faults) as (read, write),
                ClientSession(
                    dispatcher=(dispatcher := _Dispatcher(read, write)),
                    read_timeout_seconds=_REQUEST_SECONDS,
                    message_handler=self._heard,
                    client_info=types.Implementation(name="parley", version=release() or "0"),
                ) as session,
            ):
                self._negotiating.deadline = anyio.current_time() + self._connect_seconds
                with self._negotiating:
                    await negotiate_auto(session)
                if self._negotiating.cancelled_caught:
                    raise TimeoutError
                if session.protocol_version in MODERN_PROTOCOL_VERSIONS:
                    dispatcher.mirrored = self._mirrored
                    if faults.transport is not None:
                        faults.transport.mirrored = self._mirrored
                self._session = session
                self._ready.set_result(None)
                await self._keep(session)
        except ServerUnavailable as error:
            self._fail(faults, str(error))
        except TimeoutError:
            self._fail(faults, "did not answer in time")
        except (MCPError, ValidationError):
            self._fail(faults, "does not speak MCP as it should")
        except Exception as error:  # a group of whatever the SDK's tasks met
            self._fail(faults, f"ended the session ({type(error).__name__})")
        finally:
            self._fail(faults, "ended the session")

    def _fail(self, faults: Faults, why: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(faults.denied() or ServerUnavailable(faults.read() or why))

    async def _keep(self, session: ClientSession) -> None:
        capabilities = session.server_capabilities
        tools = capabilities.tools if capabilities is not None else None
        async with anyio.create_task_group() as group:
            if session.protocol_version in MODERN_PROTOCOL_VERSIONS and tools is not None and tools.list_changed:
                group.start_soon(self._listen, session)
            await self._closing.wait()
            group.cancel_scope.cancel()

    async def _listen(self, session: ClientSession) -> None:
        backoff = Backoff(1.0, 60.0)
        async for _ in backoff:
            with contextlib.suppress(MCPError, SubscriptionLost, TimeoutError, ValidationError):
                try:
                    async with listen(session, tools_list_changed=True) as changes:
                        async for _change in changes:
                            self._on_changed()
                            backoff.reset()
                except ListenNotSupportedError:
                    return
                finally:
                    self._on_changed()  # while nobody listened, anything may have changed

    async def _heard(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._on_changed()


def _offered(tool: types.Tool) -> OfferedTool:
    hints = tool.annotations
    repeatable = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
    description = tool.description or tool.title or (hints.title if hints is not None else None) or ""
    return OfferedTool(tool.name, description, tool.input_schema, repeatable)
