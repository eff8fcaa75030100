"""An MCP server: its session is opened on demand and reopened when lost; its tools are cached."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from chat_gateway.model.tools import ToolOutcome, ToolResult
from chat_gateway.tools.credentials import Credentials
from chat_gateway.tools.mcp_sdk import load_sdk
from chat_gateway.tools.offered import Offer, offer, plain_text
from chat_gateway.tools.results import failed
from chat_gateway.tools.secrets import Redaction, redaction_of
from chat_gateway.tools.server import CallOptions, ServerUnavailable
from servicekit import traces
from servicekit.egress import EgressDenied
from servicekit.values import value

if TYPE_CHECKING:
    from chat_gateway.tools.mcp_mirrored import Mirrored
    from chat_gateway.tools.mcp_session import McpSession, Streams

CALL_ID_META = "parley.dev/call-id"
"""The key of a call's id in `_meta`: a call that is repeated has the same."""

_FIRST_PAUSE = 1.0
_SHORT_LIFE = 10.0
_MAX_PAUSE = 30.0
_MAX_ERROR = 4096
_UNKNOWN = "the call may have been carried out or not"


@value
class McpTimes:
    """In seconds: for connecting, for listing tools, and how long a list is used that the server did not change."""

    connect: float = 10.0
    listing: float = 15.0
    fresh: float = 60.0


class McpClient:
    """Implements `ServerClient`. `streams` makes what opens the server's streams, once the SDK is there."""

    def __init__(
        self,
        name: str,
        streams: "Callable[[ModuleType], Streams]",
        credentials: Credentials,
        times: McpTimes,
        *,
        paced: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`paced`: sessions that end soon after they were opened are opened again with growing pauses between."""
        self._paced = paced
        self._opened_at = float("-inf")
        self._name = name
        self._streams = streams
        self._credentials = credentials
        self._times = times
        self._clock = clock
        self._session: McpSession | None = None
        self._mirrored: Mirrored | None = None
        self._opening = asyncio.Lock()
        self._listing = asyncio.Lock()
        self._offer: Offer | None = None
        self._listed_at = 0.0
        self._stale = True
        self._unlisted: tuple[float, ServerUnavailable] | None = None
        """Whoever asked before this time gets this failure: a listing that hangs costs one turn its time, not each."""
        self._listing_pause = 0.0
        self._calls = 0
        self._refused: tuple[float, ServerUnavailable | EgressDenied] | None = None
        self._pause = 0.0
        self._closed = False

    @property
    def redaction(self) -> Redaction:
        return redaction_of(self._credentials.secrets())

    async def offer(self) -> Offer:
        asked = self._clock()
        async with self._listing:
            began = self._clock()
            if self._offer is not None and not self._stale and began - self._listed_at < self._times.fresh:
                return self._offer
            if self._unlisted is not None and asked < self._unlisted[0]:
                raise self._unlisted[1].with_traceback(None)
            await load_sdk()  # once, and not at the cost of this server's time
            self._stale = False  # what changes from here on makes it stale again
            try:
                async with asyncio.timeout(self._times.listing):
                    self._offer, self._listed_at = await self._list(), began
            except TimeoutError:
                self._stale = True
                raise await self._hangs() from None
            except BaseException as error:
                self._stale = True
                if isinstance(error, ServerUnavailable):
                    self._unlisted = self._clock(), error
                raise
            self._unlisted, self._listing_pause = None, 0.0
            return self._offer

    async def call(self, tool: str, arguments: Mapping[str, Any], options: CallOptions) -> ToolResult:
        loop = asyncio.get_running_loop()
        ends = loop.time() + options.seconds
        self._calls += 1
        try:
            result, again = await self._try(tool, arguments, options, options.seconds)
            left = ends - loop.time()
            if again and left > 0.05:
                result, _ = await self._try(tool, arguments, options, left)
        finally:
            self._calls -= 1
        return result

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _hangs(self) -> ServerUnavailable:
        """Notes that the server does not list its tools; its session is replaced, unless calls are under way in it."""
        self._listing_pause = min(2 * self._listing_pause or _FIRST_PAUSE, _MAX_PAUSE)
        if self._session is not None and not self._calls:
            await self._drop(self._session)
        error = ServerUnavailable("did not list its tools in time")
        self._unlisted = self._clock() + self._listing_pause, error
        return error

    async def _list(self) -> Offer:
        sdk = await load_sdk()
        for attempt in range(2):
            session = await self._opened()
            with sdk.exchanging(self._times.listing, {}) as exchange:
                try:
                    return offer(await session.tools(), self.redaction.clean)
                except sdk.ValidationError:
                    raise ServerUnavailable("does not list its tools as MCP says") from None
                except sdk.MCPError:
                    if exchange.denied is not None:
                        raise exchange.denied from None
                    if attempt == 0 and (exchange.terminated or session.ended):
                        await self._drop(session)
                        continue
                    raise ServerUnavailable(exchange.fault or "does not list its tools") from None
        raise AssertionError

    async def _try(
        self, tool: str, arguments: Mapping[str, Any], options: CallOptions, seconds: float
    ) -> tuple[ToolResult, bool]:
        """Returns what came of one attempt, and whether another one may be made."""
        try:
            session = await self._opened()
        except ServerUnavailable as error:
            return failed(f"the tool server {error}", ToolOutcome.UNAVAILABLE), False
        except EgressDenied as error:
            return failed(error.message, ToolOutcome.DENIED), False
        sdk = await load_sdk()
        carried = dict(traces.outgoing())
        meta = {CALL_ID_META: options.call_id, **carried}
        with sdk.exchanging(seconds, carried) as exchange:
            try:
                answer = await session.call(tool, arguments, meta, seconds)
            except sdk.ValidationError:
                return failed("the tool server's answer is not what MCP says a result is"), False
            except sdk.MCPError as error:
                return await self._failure(sdk, error, exchange, session, options)
        if answer is None:
            return failed("the tool asks for input while it runs, which is not supported"), False
        outcome = ToolOutcome.ERROR if answer.is_error else ToolOutcome.OK
        return ToolResult(answer.text, outcome), False

    async def _failure(
        self, sdk: ModuleType, error: Any, exchange: Any, session: "McpSession", options: CallOptions
    ) -> tuple[ToolResult, bool]:
        self._stale = True  # another release may be there, with other tools
        if exchange.denied is not None:
            return failed(exchange.denied.message, ToolOutcome.DENIED), False
        if exchange.terminated or (exchange.refused_session and "session" in str(error.error.message).lower()):
            await self._drop(session)
            return failed("the tool server ended the session", ToolOutcome.UNAVAILABLE), True
        if not exchange.received:
            return failed(f"the tool server {exchange.fault}", ToolOutcome.UNAVAILABLE), False
        if error.code == sdk.types.HEADER_MISMATCH:
            # Refused before it was carried out: the tool says other things of its arguments now.
            with suppress(ServerUnavailable, EgressDenied):
                await self.offer()
            return failed("the tool server refuses the headers of the call"), True
        if exchange.late or error.code == sdk.types.REQUEST_TIMEOUT:
            return failed(f"the tool did not answer within {options.seconds:g} s", ToolOutcome.TIMEOUT), False
        if session.ended:
            await self._drop(session)
        if exchange.fault and not exchange.broken:
            return failed(f"the tool server {exchange.fault}"), False
        if exchange.broken or error.code == sdk.types.CONNECTION_CLOSED:
            lost = f"the tool server {session.lost}" if session.lost else "the connection was lost"
            return failed(f"{lost} before it answered: {_UNKNOWN}", ToolOutcome.UNKNOWN), options.idempotent
        if error.code == sdk.types.PARSE_ERROR:
            return failed("the tool server's answer can't be read"), False
        said = plain_text(self.redaction.clean(str(error.error.message)), _MAX_ERROR)
        return failed(f"the tool server answered with an error: {said}"), False

    async def _opened(self) -> "McpSession":
        async with self._opening:
            if self._closed:
                raise ServerUnavailable("is not used any more")
            if self._session is not None and not self._session.ended:
                return self._session
            if self._refused is not None and self._clock() < self._refused[0]:
                raise self._refused[1].with_traceback(None)
            if self._session is not None and self._paced:
                self._session = None
                self._pace()
            sdk = await load_sdk()
            self._mirrored = self._mirrored or sdk.Mirrored()
            session: McpSession = sdk.McpSession(
                self._name,
                self._streams(sdk),
                connect_seconds=self._times.connect,
                on_changed=self._changed,
                mirrored=self._mirrored,
            )
            try:
                await session.opened()
            except (ServerUnavailable, EgressDenied) as error:
                self._refuse(error)
                raise
            except asyncio.CancelledError:
                await session.close()
                raise
            self._session, self._refused, self._opened_at = session, None, self._clock()
            if not self._paced:
                self._pause = 0.0
            return session

    def _pace(self) -> None:
        """Raises `ServerUnavailable` where sessions end soon one after the other; the first is replaced at once."""
        if self._clock() - self._opened_at >= _SHORT_LIFE:
            self._pause = 0.0
            return
        error = ServerUnavailable("ends again and again")
        self._refuse(error)
        if self._pause > _FIRST_PAUSE:
            raise error

    def _refuse(self, error: "ServerUnavailable | EgressDenied") -> None:
        self._pause = min(2 * self._pause or _FIRST_PAUSE, _MAX_PAUSE)
        self._refused = (self._clock() + self._pause, error)

    async def _drop(self, session: "McpSession") -> None:
        await session.close()

    def _changed(self) -> None:
        self._stale = True
