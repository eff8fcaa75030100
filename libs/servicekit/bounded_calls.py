"""Bounds on unauthenticated calls: time, and concurrency."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import grpc

from servicekit.errors import Code, DeadlineExceeded, InvalidArgument, ServiceError
from servicekit.interceptors import Behavior, Context, HandlerInterceptor, as_coroutine
from servicekit.peers import address_of
from servicekit.rpc_status import to_grpc_status
from servicekit.sites import site_of

REQUEST_SECONDS = 30.0
"""How long a unary call's request may take to arrive."""
HURRIED_SECONDS = 1.0
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


class BoundedCalls(HandlerInterceptor):
    """Enforces `CallBounds`; goes inside the error mapping and outside authentication. A call whose request does not
    arrive within `request_seconds` ends with DEADLINE_EXCEEDED, and one without a request with INVALID_ARGUMENT: grpcio
    would keep both open for as long as the caller likes.
    """

    def __init__(self, bounds: CallBounds, *, request_seconds: float = REQUEST_SECONDS) -> None:
        super().__init__()
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

        async def waited(_: Any, context: Context[Any, Any]) -> Any:
            return await behavior(await self._request(context), context)

        # The same on the wire, but the request is read here, not before our code runs.
        return make(self.wrap(method, waited), handler.request_deserializer, handler.response_serializer)

    async def _request(self, context: Context[Any, Any]) -> Any:
        waiting = self._waiting
        if len(waiting) >= self._bounds.waiting:
            oldest = next(iter(waiting))
            del waiting[oldest]
            oldest.hurry()
        wait = _Wait(context, self._request_seconds)
        waiting[wait] = None
        try:
            # Not cancelled on a timeout: grpcio's core may still write to the message's buffer.
            request = await context.read()
        except grpc.aio.AbortError as abort:
            raise abort from wait.error  # the log reads the reason from the cause
        finally:
            wait.timer.cancel()
            waiting.pop(wait, None)
        if request is grpc.aio.EOF:
            raise InvalidArgument(message="the call has no request")
        return request

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


class _Wait:
    """A call whose request has not arrived; it is refused on a timeout."""

    __slots__ = ("_begin", "_context", "_refusal", "_seconds", "error", "timer")

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

    def give_up(self) -> None:
        """Refuses the call, which ends the wait for its request."""
        if self._refusal is None:
            self._refusal = asyncio.get_running_loop().create_task(self._refuse(), name="refusal")

    async def _refuse(self) -> None:
        self.error = DeadlineExceeded(f"the request did not come within {self._seconds:g} s, or while others did")
        # Raises here and where the request is read, unless that has ended already.
        with contextlib.suppress(grpc.aio.BaseError):
            await self._context.abort(*to_grpc_status(self.error))
