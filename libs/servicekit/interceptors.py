"""Server interceptors: errors to the wire, one log line a call, one measurement a call."""

import abc
import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError
from prometheus_client import Histogram

from servicekit import traces
from servicekit.errors import Code, Draining, Internal, InvalidArgument, ServiceError
from servicekit.logs import SampledLines
from servicekit.rpc_status import to_grpc_status

Context = grpc.aio.ServicerContext
Behavior = Callable[[Any, Any], Awaitable[Any]]
"""A method as the interceptors see it: a coroutine function that takes request (or an iterator of requests) and
context, and returns the response, or, when it streams, writes its responses to the context."""

log = structlog.get_logger("servicekit.rpc")


class HandlerInterceptor(grpc.aio.ServerInterceptor, metaclass=abc.ABCMeta):  # type: ignore[type-arg, unused-ignore]
    """Wraps the handler of each method once and keeps it, so that a call costs one dictionary look-up."""

    def __init__(self) -> None:
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Returns the wrapped handler; None for a method that is not served."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        wrapped = self._wrap_handler(method, handler)
        self._wrapped[method] = (handler, wrapped)
        return wrapped

    @abc.abstractmethod
    def wrap(self, method: str, behavior: Behavior) -> Behavior:
        """Returns `behavior` with this interceptor around it; `method` is `/package.Service/Method`."""

    def deserializer(self, handler: Any) -> Any:
        """Returns what turns request bytes into a request."""
        return handler.request_deserializer

    def _wrap_handler(self, method: str, handler: Any) -> Any:
        shape = {False: "unary", True: "stream"}
        kind = f"{shape[bool(handler.request_streaming)]}_{shape[bool(handler.response_streaming)]}"
        behavior = as_coroutine(getattr(handler, kind), handler.response_streaming)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(self.wrap(method, behavior), self.deserializer(handler), handler.response_serializer)


class ErrorMapping(HandlerInterceptor):
    """Ends a call that raises with the error's rich status, before or after the stream's first message.

    A `ServiceError` is sent as it is; anything else is logged with its traceback and sent as INTERNAL without a word of
    it. Cancellation passes. A request that does not parse is INVALID_ARGUMENT.
    """

    def wrap(self, method: str, behavior: Behavior) -> Behavior:
        async def mapped(request: Any, context: Context[Any, Any]) -> Any:
            try:
                if type(request) is _Unparsable:
                    raise unparsable()
                return await behavior(request, context)
            except ServiceError as error:
                await _abort(context, error)
            except grpc.aio.UsageError as error:
                if context.done():
                    raise
                await _abort(context, _unexpected(method, error))
            except grpc.aio.BaseError:
                raise  # aborted, stopped, or the client is gone: grpcio's own to handle
            except Exception as error:
                await _abort(context, _unexpected(method, error))

        return mapped

    def deserializer(self, handler: Any) -> Any:
        parse = handler.request_deserializer
        if parse is None:
            return None
        streaming = handler.request_streaming

        def parse_or_mark(data: bytes) -> Any:
            try:
                return parse(data)
            except DecodeError:
                # Raised here, a unary request's error would escape all interceptors; a stream's goes to its reader.
                if streaming:
                    raise unparsable() from None
                return _Unparsable()

        return parse_or_mark


OnCallEnd = Callable[[str, str | None, float], None]
"""Takes the end of a call: the name of its status, the reason if it has one, and its duration in seconds."""


class CallObserver(Protocol):
    """Is notified of the end of every call."""

    def of(self, method: str) -> OnCallEnd:
        """Returns what records the ends of calls of `method` (`package.Service/Method`); asked once a method."""


class Observed(HandlerInterceptor):
    """Reports the end of every call, streams included, to each observer; goes outside the error mapping."""

    def __init__(self, observers: Sequence[CallObserver]) -> None:
        super().__init__()
        self._observers = tuple(observers)

    def wrap(self, method: str, behavior: Behavior) -> Behavior:
        listeners = [observer.of(method.removeprefix("/")) for observer in self._observers]

        async def observed(request: Any, context: Context[Any, Any]) -> Any:
            start = time.perf_counter()
            try:
                response = await behavior(request, context)
            except BaseException as error:
                code, reason, seconds = status_name(context, error), _reason(error), time.perf_counter() - start
                for on_end in listeners:
                    on_end(code, reason, seconds)
                raise
            code, seconds = status_name(context, None), time.perf_counter() - start
            for on_end in listeners:
                on_end(code, None, seconds)
            return response

        return observed


class CallLog:
    """Writes one line a call: method, status, reason, duration. Never what was said.

    Server faults are errors, everything else is information; the methods in `quiet` are logged for debugging only.
    Of the calls of one method that end alike at most `max_lines` a second have a line, and the next line says how many
    were `left_out`: under load, a line for every call would be a tenth of a service's work, and whoever is refused
    could fill the disk.
    """

    def __init__(self, quiet: Collection[str] = (), max_lines: int = 10) -> None:
        self._quiet = frozenset(quiet)
        self._max_lines = max_lines

    def of(self, method: str) -> OnCallEnd:
        usual = log.debug if method in self._quiet else log.info
        by_code: dict[str, SampledLines] = {}

        def record(code: str, reason: str | None, seconds: float) -> None:
            lines = by_code.get(code)
            if lines is None:
                lines = by_code[code] = SampledLines(self._max_lines)
            if not lines.take():
                return
            write = log.error if code in _SERVER_FAULTS else usual
            write("call", method=method, code=code, reason=reason, ms=round(seconds * 1e3, 2), **lines.left_out())

        return record


class CallMetrics:
    """Measures each call's duration by method and status (`servicekit.metrics.call_duration`)."""

    def __init__(self, duration: Histogram) -> None:
        self._duration = duration

    def of(self, method: str) -> OnCallEnd:
        by_code: dict[str, Histogram] = {}

        def record(code: str, _reason: str | None, seconds: float) -> None:
            child = by_code.get(code)
            if child is None:
                child = by_code[code] = self._duration.labels(method, code)
            child.observe(seconds)

        return record


class Traced(HandlerInterceptor):
    """Makes a span of every call but of those in `quiet`, as a child of the caller's (W3C trace context in metadata).

    Goes outside all others, so that what they log carries the span's ids.
    """

    def __init__(self, quiet: Collection[str] = ()) -> None:
        super().__init__()
        self._quiet = frozenset(quiet)

    def wrap(self, method: str, behavior: Behavior) -> Behavior:
        name = method.removeprefix("/")
        if name in self._quiet:
            return behavior
        attributes = {"rpc.system.name": "grpc", "rpc.method": name}

        async def traced(request: Any, context: Context[Any, Any]) -> Any:
            given = context.invocation_metadata() or ()
            carrier = {key: str(value) for key, value in given if key in _TRACE_CONTEXT}
            with traces.span(name, "server", attributes, carrier=carrier) as span:
                try:
                    response = await behavior(request, context)
                except BaseException as error:
                    span.set("rpc.response.status_code", status_name(context, error))
                    raise
                span.set("rpc.response.status_code", status_name(context, None))
                return response

        return traced


class EndOnDrain(HandlerInterceptor):
    """Ends the calls of methods that never end by themselves (watches) when the server drains, with `Draining`.

    Without it one open watch holds the drain for the whole grace. All other calls have that grace, and are ended like
    that at its end: from gRPC itself their callers would hear CANCELLED, which no client repeats.
    """

    def __init__(self, methods: Collection[str]) -> None:
        super().__init__()
        self._methods = frozenset(methods)
        self._endless: set[asyncio.Task[Any]] = set()
        self._others: set[asyncio.Task[Any]] = set()
        self._draining = False

    def wrap(self, method: str, behavior: Behavior) -> Behavior:
        endless = method in self._methods
        running = self._endless if endless else self._others

        async def endable(request: Any, context: Context[Any, Any]) -> Any:
            task = asyncio.current_task()
            if task is None or (endless and self._draining):
                raise Draining
            running.add(task)
            try:
                return await behavior(request, context)
            except asyncio.CancelledError:
                if task not in running and task.uncancel() == 0:
                    raise Draining from None
                raise
            finally:
                running.discard(task)

        return endable

    @property
    def running(self) -> int:
        """How many calls there are now that never end by themselves."""
        return len(self._endless)

    def drain(self) -> None:
        """Ends all of those now; later ones are refused."""
        self._draining = True
        _cancel_all(self._endless)

    def cut(self) -> None:
        """Ends every call."""
        _cancel_all(self._others)


def _cancel_all(running: set[asyncio.Task[Any]]) -> None:
    while running:
        running.pop().cancel()


def status_name(context: Context[Any, Any], failure: BaseException | None) -> str:
    """Returns the name of the status that a call ends with, given what its handler raised."""
    if isinstance(failure, asyncio.CancelledError):
        left = remaining(context)
        return "CANCELLED" if left is None or left > _CLOCK_SLACK else "DEADLINE_EXCEEDED"
    code = context.code()
    if code:
        return code.name if isinstance(code, grpc.StatusCode) else str(code)
    if failure is None:
        return "OK"
    return "CANCELLED" if isinstance(failure, grpc.aio.InternalError) else "UNKNOWN"


def remaining(context: Context[Any, Any]) -> float | None:
    """Returns the seconds until the caller's deadline, at least 0; None when the caller set none."""
    return context.time_remaining()


_TRACE_CONTEXT = frozenset({traces.TRACEPARENT, traces.TRACESTATE})

_CLOCK_SLACK = 0.05
"""Seconds by which a client, whose clock started first, may end a call at its deadline before ours is reached."""

_CANCEL_FOLLOWS = 1.0

_SERVER_FAULTS = frozenset({Code.INTERNAL.name, Code.UNKNOWN.name, Code.DATA_LOSS.name})


class _Unparsable:
    """Takes the place of a request whose bytes are not a message."""


def unparsable() -> InvalidArgument:
    """Returns the error of a request that is none."""
    return InvalidArgument(message="the request is not a message of the method's request type")


def _reason(failure: BaseException) -> str | None:
    cause = failure.__cause__  # set by _abort
    return cause.reason if isinstance(cause, ServiceError) else None


def _unexpected(method: str, error: Exception) -> Internal:
    log.error("unexpected_exception", method=method.removeprefix("/"), exc_info=error)
    return Internal()


async def _abort(context: Context[Any, Any], error: ServiceError) -> None:
    code, details, trailing = to_grpc_status(error)
    try:
        await context.abort(code, details, trailing)
    except grpc.aio.AbortError as abort:
        raise abort from error  # the log reads the reason from the cause


def as_coroutine(behavior: Any, response_streaming: bool) -> Behavior:
    """Returns a method of whichever kind as a `Behavior`."""
    if inspect.iscoroutinefunction(behavior):
        coroutine_function: Behavior = behavior
        return coroutine_function
    if not response_streaming:

        async def respond(request: Any, context: Context[Any, Any]) -> Any:
            return await behavior(request, context)

        return respond

    async def write_all(request: Any, context: Context[Any, Any]) -> None:
        async with contextlib.aclosing(behavior(request, context)) as responses:
            async for response in responses:
                try:
                    await context.write(response)
                except grpc.aio.InternalError:
                    await _take_the_cancel_that_follows()
                    raise

    return write_all


async def _take_the_cancel_that_follows() -> None:
    # A lost client shows twice: a write fails, then the call's task is cancelled. Taken here, the cancel does not hit
    # the handler's own cleanup half-way.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CANCEL_FOLLOWS):
            await asyncio.Event().wait()
