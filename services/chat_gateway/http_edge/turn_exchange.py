"""One HTTP request that runs a turn, for any protocol: its body, response and errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

import structlog

from chat_gateway.finishing import FinishingTurns
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.wire.bodies import SMALL_BODY, BodyTimeout, ClientGone, is_large, read_body, unpack
from chat_gateway.http_edge.wire.context import CLIENT_GONE, RequestContext
from chat_gateway.http_edge.wire.errors import encode_error, error_headers, http_status
from chat_gateway.http_edge.wire.limit_headers import Headers
from chat_gateway.http_edge.wire.refusal import refuse
from chat_gateway.http_edge.wire.sse import EventStream, event, with_id
from chat_gateway.http_edge.wire.turn_headers import PROVIDER_HEADER, answer_headers
from chat_gateway.model.errors import CommitCutShort, CommitUnresolved, TurnCutShort, TurnQueueFull
from chat_gateway.model.provider_errors import FieldNotOverridable, UnsupportedField
from chat_gateway.model.turn import Delta, TurnOutcome, TurnRequest, TurnStarted
from servicekit.errors import Draining, Internal, InvalidArgument, MessageTooLarge, ServiceError, Violation

log = structlog.get_logger("chat_gateway.http")

T = TypeVar("T")


class TurnEvents(Protocol):
    """How a protocol writes a streamed turn as server-sent events, in the order of the methods."""

    def start(self, started: TurnStarted) -> bytes:
        """Returns what comes before the first piece of the answer; called once."""

    def delta(self, delta: Delta) -> bytes:
        """Returns one more piece of the answer."""

    def finish(self, outcome: TurnOutcome) -> bytes:
        """Returns the end of the answer; called once, after the turn was stored."""

    def fail(self, error: ServiceError) -> bytes:
        """Returns the end of an answer that has begun and fails; called once, in place of `finish`."""


class Exchange:
    """One request and its answer, as a context: what fails inside is answered, and does not leave it.

    After it, `status` is what the request was answered with. A client that leaves while its request is worked on
    cancels the task, as a drain of the server does; only the latter is answered. `param_of` gives a field of the use
    case the name that the protocol's callers know it by.
    """

    __slots__ = (
        "_client_gone",
        "_context",
        "_held",
        "_param_of",
        "_reading",
        "_settings",
        "_stream",
        "_task",
        "status",
    )

    def __init__(self, context: RequestContext, settings: HttpSettings, param_of: Callable[[str], str]) -> None:
        self._context = context
        self._settings = settings
        self._param_of = param_of
        self._task = asyncio.current_task()
        self._stream: EventStream | None = None
        self._reading = False
        self._held = 0
        self._client_gone = False
        self.status = 0

    async def __aenter__(self) -> Self:
        return self

    async def body(self) -> bytes:
        """Returns the request's body, all of it within the bounds of the settings.

        A large one counts in the memory budget until the exchange is over. Raises as `read_body` and `unpack` do, and
        `TurnQueueFull`.
        """
        settings, headers = self._settings, self._context.headers
        timeout = None if self._context.connection.has_body else settings.body_timeout
        limit, encoding = settings.max_body_bytes, headers.get(b"content-encoding")
        self._reading = True
        body = await read_body(self._context.receive, limit, timeout, self._hold)
        self._reading = False
        if encoding is not None:
            body = await self._unpacked(body, encoding, limit)
        if self._held:
            self._shrink_to(len(body))
        return body

    async def _unpacked(self, body: bytes, encoding: bytes, limit: int) -> bytes:
        try:
            return unpack(body, encoding, min(SMALL_BODY, limit))
        except MessageTooLarge:
            await self._hold()  # nobody knows how large it will be
            return await asyncio.to_thread(unpack, body, encoding, limit)

    async def _hold(self) -> None:
        if not self._held:
            length = self._context.headers.get(b"content-length")
            plain = length is not None and b"content-encoding" not in self._context.headers
            size = int(length) if plain and length is not None else self._settings.max_body_bytes
            self._held = await self._settings.memory.take(size)

    def _shrink_to(self, size: int) -> None:
        if self._held > size:
            kept = size if size > SMALL_BODY else 0
            self._settings.memory.release(self._held - kept)
            self._held = kept

    async def read(self, convert: Callable[[bytes], T]) -> T:
        """Returns what `convert` makes of the body: beside the event loop, and within a budget, if that is large.

        Raises as `body` and `convert` do.
        """
        return await self.converted(await self.body(), convert)

    async def converted(self, body: bytes, convert: Callable[[bytes], T]) -> T:
        """Returns what `convert` makes of a body of this request, as `read` does."""
        if not is_large(body):
            return convert(body)
        taken = await self.watched(self._settings.decoding.take(len(body)))
        try:
            return await asyncio.to_thread(convert, body)
        finally:
            self._settings.decoding.release(taken)

    async def watched(self, work: Awaitable[T]) -> T:
        """Returns what comes of the work, which a client that leaves cancels."""
        self._context.connection.watch(self._leave)
        outcome = await work
        self._unwatch()
        return outcome

    async def answer(self, body: bytes, headers: Headers, *, status: int = 200) -> None:
        """Answers with what came of the request."""
        self.status = status
        await self._context.respond(status, body, headers)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._held:
            self._shrink_to(0)
        if error is None:
            return False
        self._unwatch()
        try:
            await self._fail(error)
        except (ClientGone, asyncio.CancelledError):
            self.status = CLIENT_GONE
        return True

    async def _fail(self, error: BaseException) -> None:
        match error:
            case MessageTooLarge() | BodyTimeout() | TurnQueueFull() if self._reading:
                self.status = await refuse(error, self._context)
            case InvalidArgument() if error.violations:
                violations = [Violation(self._param_of(one.field), one.description) for one in error.violations]
                await self._answer_error(InvalidArgument(violations))
            case UnsupportedField() | FieldNotOverridable():
                await self._answer_error(error.renamed(self._param_of))
            case ServiceError():
                await self._answer_error(error)
            case CommitCutShort():
                self._take_cancellation()
                await self._answer_error(CommitUnresolved())
            case TurnCutShort():
                self._take_cancellation()
                await self._answer_error(error.error)
            case asyncio.CancelledError():
                self._take_cancellation()
                await self._answer_error(Draining())
            case Exception() if not isinstance(error, ClientGone):
                log.error("unexpected_exception", request_id=self._context.id.decode("latin-1"), exc_info=error)
                await self._answer_error(Internal())
            case _:
                raise error

    async def _answer_error(self, error: ServiceError) -> None:
        """Sends the error: as the answer, or, where a stream has begun, as its last event."""
        self.status = http_status(error)
        if self._stream is not None and self._stream.begun:
            await self._stream.end(self._end_of(error))
        else:
            await self._context.respond(self.status, encode_error(error), error_headers(error))

    def _end_of(self, error: ServiceError) -> bytes:
        """Returns the last event of a stream that has begun."""
        return event(encode_error(error))

    def _take_cancellation(self) -> None:
        """Decides what a cancellation of this task means: raises `ClientGone`, or takes it as the server's drain."""
        if self._client_gone:
            raise ClientGone
        if self._task is not None:
            self._task.uncancel()

    def _leave(self) -> None:
        self._client_gone = True
        if self._task is not None:
            self._task.cancel()

    def _unwatch(self) -> None:
        """From here on the client's end does not cancel this task."""
        self._context.connection.unwatch()
        if self._stream is not None:
            self._stream.close()


class TurnExchange(Exchange):
    """One request for a turn, and its answer."""

    __slots__ = ("_events", "_turns")

    def __init__(
        self,
        context: RequestContext,
        turns: FinishingTurns,
        settings: HttpSettings,
        param_of: Callable[[str], str],
    ) -> None:
        super().__init__(context, settings, param_of)
        self._turns = turns
        self._events: TurnEvents | None = None

    def run(self, request: TurnRequest) -> Awaitable[TurnOutcome]:
        """Runs a turn that is answered whole, and returns its outcome once it is stored."""
        return self.watched(self._turns.run(request))

    def respond(self, outcome: TurnOutcome, body: bytes) -> Awaitable[None]:
        """Answers with `body`, which says what came of the turn."""
        return self.answer(body, answer_headers(outcome))

    async def relay(self, headers: Headers, events: AsyncIterator[bytes]) -> None:
        """Sends the events of a turn that another task, or another gateway, runs."""
        settings = self._settings
        self._stream = stream = EventStream(
            self._context, settings.keep_alive_interval, settings.write_timeout, self._leave
        )
        stream.open(headers, b"")
        async for data in events:
            if data:
                await stream.write(data)
        self._unwatch()
        await stream.end(b"")
        self.status = 200

    async def stream(self, request: TurnRequest, events: TurnEvents) -> None:
        """Runs a turn and sends its answer as it grows; the end only once the turn is stored."""
        settings, self._events = self._settings, events
        stream = EventStream(self._context, settings.keep_alive_interval, settings.write_timeout, self._leave)
        self._stream = stream

        async def on_started(started: TurnStarted) -> None:
            stream.open(answer_headers(started), with_id(started.event_id, events.start(started)))

        async def on_delta(delta: Delta) -> None:
            if delta.provider:
                stream.set_header(PROVIDER_HEADER, delta.provider.encode("latin-1"))
            await stream.write(with_id(delta.event_id, events.delta(delta)))

        outcome = await self._turns.run(request, on_started, on_delta)
        self._unwatch()
        await stream.end(events.finish(outcome))
        self.status = 200

    def _end_of(self, error: ServiceError) -> bytes:
        return super()._end_of(error) if self._events is None else self._events.fail(error)
