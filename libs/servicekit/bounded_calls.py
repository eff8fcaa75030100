"""Bounds on unauthenticated calls: time, and concurrency."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from servicekit.errors import Code, DeadlineExceeded, InvalidArgument, ServiceError
from servicekit.interceptors import Behavior, Context, HandlerInterceptor, as_coroutine, unparsable
from servicekit.message_width import SMALL_BYTES, check_width
from servicekit.peers import address_of
from servicekit.rpc_status import to_grpc_status
from servicekit.sites import site_of

REQUEST_SECONDS = 30.0
"""How long a unary call's request may take to arrive."""
HURRIED_SECONDS = 1.0
SLOW_SECONDS = 0.5
"""After so long a request that has not come whole counts as a large one that arrives."""
_MAX_LAG_SECONDS = 0.1
"""If the event loop is later than this, it is unknown whether a request has arrived."""
RETRY_AFTER_SECONDS = 1.0


class TooManyCalls(ServiceError):
    """A source, or a method, has the maximum number of open calls."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "TOO_MANY_CALLS"

    def __init__(self, scope: str, limit: int) -> None:
        super().__init__(
            f"too many open calls of one {scope}: at most {limit}",
            metadata={"scope": scope, "limit": str(limit)},
            retry_after=RETRY_AFTER_SECONDS,
            quota_subject=scope,
        )


class RequestMemory(Protocol):
    """What large requests have of memory."""

    def held(self, size: int) -> AbstractAsyncContextManager[None]:
        """Holds that many bytes while open; waits for them within a bound, and raises a `ServiceError` beyond."""


Admit = Callable[[str, Context[Any, Any]], Awaitable[None]]
"""Raises if the caller of a method may not call it, judged by its metadata alone."""


@dataclass(frozen=True, slots=True)
class LargeRequests:
    """What unary calls may hold whose requests are large, or come slowly."""

    memory: RequestMemory
    """For those that are served."""
    arriving: int
    """How many may be on their way at a time, or wait for memory; three quarters of them from one address."""


@dataclass(frozen=True, slots=True)
class CallBounds:
    """How many calls may be open at a time. A call is open until its response is written."""

    per_source: int | None
    """Per address; None if all calls come from peers."""
    waiting: int
    """Unary calls whose request has not arrived; one more gives the oldest a second in total."""
    endless: Collection[str] = ()
    """Unauthenticated methods (`/package.Service/Method`) whose calls never end by themselves."""
    endless_each: int = 256
    """Calls of each of these; a quarter of them from one address."""
    large: LargeRequests | None = None
    """None where all calls come from peers."""


class BoundedCalls(HandlerInterceptor):
    """Enforces `CallBounds`; goes inside the error mapping and outside authentication. A call whose request does not
    arrive within `request_seconds` ends with DEADLINE_EXCEEDED, and one without a request with INVALID_ARGUMENT: grpcio
    would keep both open for as long as the caller likes. Requests are read after `admit` has returned.
    """

    def __init__(
        self, bounds: CallBounds, *, request_seconds: float = REQUEST_SECONDS, admit: Admit | None = None
    ) -> None:
        super().__init__()
        self._admit = admit
        self._arriving: Counter[str] = Counter()
        self._bounds = bounds
        self._request_seconds = request_seconds
        self._by_source: Counter[str] = Counter()
        self._endless: Counter[str] = Counter()
        self._waiting: dict[_Wait, None] = {}

    def wrap(self, method: str, behavior: Behavior) -> Behavior:
        """Returns `behavior` with its calls counted, where anything bounds them."""
        if self._bounds.per_source is None and method not in self._bounds.endless:
            return behavior

        async def counted(request: Any, context: Context[Any, Any]) -> Any:
            self._count(method, context)
            return await behavior(request, context)

        return counted

    def _wrap_handler(self, method: str, handler: Any) -> Any:
        if handler.request_streaming:
            return super()._wrap_handler(method, handler)
        streams = handler.response_streaming
        name, make = (
            ("unary_stream", grpc.stream_stream_rpc_method_handler)
            if streams
            else ("unary_unary", grpc.stream_unary_rpc_method_handler)
        )
        behavior = as_coroutine(getattr(handler, name), streams)
        parsed = _parsing(handler.request_deserializer)
        admit = self._admit

        async def waited(_: Any, context: Context[Any, Any]) -> Any:
            if admit is not None:
                await admit(method, context)
            data = await self._request(context)
            if len(data) <= SMALL_BYTES:
                return await behavior(parsed(data), context)
            async with self._held(len(data), context):
                request, data = parsed(data), b""
                return await behavior(request, context)

        # The same on the wire, but the request is read here, not before our code runs.
        return make(self.wrap(method, waited), None, handler.response_serializer)

    @contextlib.asynccontextmanager
    async def _held(self, size: int, context: Context[Any, Any]) -> AsyncIterator[None]:
        """Has a large request count in the memory budget. Raises `TooManyCalls`, and what the budget raises."""
        large = self._bounds.large
        if large is None:
            yield
            return
        async with contextlib.AsyncExitStack() as stack:
            with self._arrives(large, site_of(address_of(context.peer()))):
                await stack.enter_async_context(large.memory.held(size))
            yield

    @contextlib.contextmanager
    def _arrives(self, large: LargeRequests, source: str) -> Iterator[None]:
        self.enter_arriving(large, source)
        try:
            yield
        finally:
            self.leave_arriving(source)

    def enter_arriving(self, large: LargeRequests, source: str) -> None:
        """Counts a large request that is on its way until `leave_arriving`. Raises `TooManyCalls`."""
        for count, scope, limit in (
            (self._arriving.total(), "large requests", large.arriving),
            (self._arriving[source], "address", max(large.arriving * 3 // 4, 1)),
        ):
            if count >= limit:
                raise TooManyCalls(scope, limit)
        self._arriving[source] += 1

    def leave_arriving(self, source: str) -> None:
        """Counts one less."""
        self._arriving[source] -= 1
        if not self._arriving[source]:
            del self._arriving[source]

    async def _request(self, context: Context[Any, Any]) -> bytes:
        waiting = self._waiting
        if len(waiting) >= self._bounds.waiting:
            oldest = next(iter(waiting))
            del waiting[oldest]
            oldest.hurry()
        wait = _Wait(context, self._request_seconds)
        waiting[wait] = None
        slow = None if self._bounds.large is None else _SlowRequest(self, self._bounds.large, wait)
        try:
            # Not cancelled on a timeout: grpcio's core may still write to the message's buffer.
            request: Any = await context.read()
        except grpc.aio.AbortError as abort:
            raise abort from wait.error  # the log reads the reason from the cause
        finally:
            wait.timer.cancel()
            waiting.pop(wait, None)
            if slow is not None:
                slow.end()
        if request is grpc.aio.EOF:
            raise InvalidArgument(message="the call has no request")
        read: bytes = request
        return read

    def _count(self, method: str, context: Context[Any, Any]) -> None:
        bounds, source = self._bounds, site_of(address_of(context.peer()))
        held = [(self._by_source, source, "address", bounds.per_source)]
        if method in bounds.endless:
            held += [
                (self._endless, method, "method", bounds.endless_each),
                (self._endless, f"{method} {source}", "address", bounds.endless_each // 4),
            ]
        for counter, key, scope, limit in held:
            if limit is not None and counter[key] >= limit:
                raise TooManyCalls(scope, limit)
        for counter, key, _, _ in held:
            counter[key] += 1

        def release(_: Any) -> None:
            for counter, key, _, _ in held:
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]

        done: Any = release
        context.add_done_callback(done)  # also waits for a response that the caller does not read


class _SlowRequest:
    """A request that has not come yet, and counts as one that arrives once it is slow.

    grpcio's core takes all of a message that is waited for, and nobody sees how much of it is there.
    """

    __slots__ = ("_calls", "_due", "_entered", "_large", "_timer", "_wait")

    def __init__(self, calls: BoundedCalls, large: LargeRequests, wait: "_Wait") -> None:
        self._calls = calls
        self._large = large
        self._wait = wait
        self._entered = ""
        self._check_in(SLOW_SECONDS)

    def end(self) -> None:
        """Ends the wait. To be called once."""
        self._timer.cancel()
        if self._entered:
            self._calls.leave_arriving(self._entered)

    def _check_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + seconds
        self._timer = loop.call_at(self._due, self._check)

    def _check(self) -> None:
        if asyncio.get_running_loop().time() - self._due > _MAX_LAG_SECONDS:
            self._check_in(_MAX_LAG_SECONDS)
            return
        source = self._wait.source
        try:
            self._calls.enter_arriving(self._large, source)
        except TooManyCalls as error:
            self._wait.give_up(error)
        else:
            self._entered = source


class _Wait:
    """A call whose request has not arrived; it is refused on a timeout."""

    __slots__ = ("_begin", "_context", "_refusal", "_seconds", "error", "timer")

    @property
    def source(self) -> str:
        """Where the call comes from."""
        return site_of(address_of(self._context.peer()))

    def __init__(self, context: Context[Any, Any], seconds: float) -> None:
        self._context = context
        self._seconds = seconds
        self._refusal: asyncio.Task[None] | None = None
        self.error: ServiceError | None = None
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(seconds, self.give_up)
        self._begin = loop.time()

    def hurry(self) -> None:
        """Gives the request a second since the start of its call, because others need the slot."""
        self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_at(self._begin + HURRIED_SECONDS, self.give_up)

    def give_up(self, error: ServiceError | None = None) -> None:
        """Refuses the call, which ends the wait for its request."""
        if self._refusal is None:
            late = f"the request did not come within {self._seconds:g} s, or while others did"
            self.error = error or DeadlineExceeded(late)
            self._refusal = asyncio.get_running_loop().create_task(self._refuse(self.error), name="refusal")

    async def _refuse(self, error: ServiceError) -> None:
        # Raises here and where the request is read, unless that has ended already.
        with contextlib.suppress(grpc.aio.BaseError):
            await self._context.abort(*to_grpc_status(error))


def _parsing(parse: Any) -> Callable[[bytes], Any]:
    """Returns what turns bytes into a request, and raises `InvalidArgument` where they are none, or hold too much."""
    if parse is None:
        return lambda data: data
    descriptor = getattr(getattr(parse, "__self__", None), "DESCRIPTOR", None)

    def parsed(data: bytes) -> Any:
        if descriptor is not None:
            check_width(data, descriptor)
        try:
            return parse(data)
        except DecodeError:
            raise unparsable() from None

    return parsed
