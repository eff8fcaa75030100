import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from structlog.testing import capture_logs

from servicekit.channels import call, stream
from servicekit.errors import (
    Code,
    DeadlineExceeded,
    InvalidArgument,
    MessageTooLarge,
    RemoteError,
    ServiceError,
    Unavailable,
    Violation,
)
from servicekit.interceptors import Behavior, HandlerInterceptor, remaining, status_name
from servicekit.settings import ServiceSettings

Start = Callable[..., Any]
Outcome = Callable[..., Any]
HELLO = StringValue(value="hello")


class Busy(ServiceError):
    code = Code.ABORTED
    reason = "SESSION_BUSY"


async def echo(request: StringValue, context: Any) -> StringValue:
    return request


async def busy(request: StringValue, context: Any) -> StringValue:
    raise Busy("session 's' is busy", metadata={"session_id": "s"}, retry_after=2)


async def crash(request: StringValue, context: Any) -> StringValue:
    raise KeyError("SELECT secret FROM users")


async def messages_then_busy(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
    yield StringValue(value="one")
    yield StringValue(value="two")
    raise Busy("session 's' is busy", metadata={"session_id": "s"})


async def message_then_crash(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
    yield StringValue(value="one")
    raise KeyError("secret")


async def join(requests: AsyncIterator[StringValue], context: Any) -> StringValue:
    return StringValue(value=" ".join([request.value async for request in requests]))


async def test_an_error_of_a_unary_call_arrives_whole(start: Start) -> None:
    async with start({"Busy": ("unary_unary", busy)}) as peer:
        with pytest.raises(RemoteError) as caught:
            await call(peer.method("Busy"), HELLO, timeout=60)
    error = caught.value
    assert (error.code, error.reason, error.message) == (Code.ABORTED, "SESSION_BUSY", "session 's' is busy")
    assert (error.metadata, error.retry_after) == ({"session_id": "s"}, 2)


async def test_an_error_after_the_first_message_of_a_stream_arrives_whole(start: Start, outcome: Outcome) -> None:
    async with start({"Watch": ("unary_stream", messages_then_busy)}) as peer:
        received, error = await outcome(stream(peer.method("Watch", "unary_stream"), HELLO, timeout=60))
    assert [response.value for response in received] == ["one", "two"]
    assert isinstance(error, RemoteError)
    assert (error.reason, error.metadata) == ("SESSION_BUSY", {"session_id": "s"})


async def test_an_error_of_a_method_that_writes_to_its_context_arrives_whole(start: Start, outcome: Outcome) -> None:
    async def writing(request: StringValue, context: Any) -> None:
        await context.write(StringValue(value="one"))
        raise Busy("busy")

    async with start({"Watch": ("unary_stream", writing)}) as peer:
        received, error = await outcome(stream(peer.method("Watch", "unary_stream"), HELLO, timeout=60))
    assert [response.value for response in received] == ["one"]
    assert isinstance(error, RemoteError)
    assert (error.reason, error.message) == ("SESSION_BUSY", "busy")


async def test_an_error_of_a_client_stream_arrives_whole(start: Start) -> None:
    async def picky(requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        async for _ in requests:
            raise InvalidArgument([Violation("value", "is odd")])
        return StringValue()

    async with start({"Join": ("stream_unary", picky)}) as peer:
        error = await failure(after_one(peer.method("Join", "stream_unary"), HELLO))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "value: is odd"


@pytest.mark.parametrize(
    ("kind", "behavior"), [("unary_unary", crash), ("unary_stream", message_then_crash), ("unary_stream", crash)]
)
async def test_an_unexpected_exception_leaks_no_text_and_is_logged(
    start: Start, kind: str, behavior: Callable[..., Any]
) -> None:
    with capture_logs() as logs:
        async with start({"Crash": (kind, behavior)}) as peer:
            responding = peer.method("Crash", kind)(HELLO)
            error = await failure(responding if kind == "unary_unary" else rest_of(responding))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    sent = repr(error) + repr(list(error.trailing_metadata() or ()))
    assert "secret" not in sent
    assert "KeyError" not in sent
    assert [isinstance(line["exc_info"], KeyError) for line in logs if line["event"] == "unexpected_exception"] == [
        True
    ]


async def test_bytes_that_are_no_message_are_the_callers_fault(start: Start) -> None:
    async with start({"Echo": ("unary_unary", echo), "Join": ("stream_unary", join)}) as peer:
        for error in (
            await failure(peer.method("Echo", raw=True)(b"\xff\xff")),
            await failure(after_one(peer.method("Join", "stream_unary", raw=True), b"\xff\xff")),
        ):
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "not a message" in (error.details() or "")


async def test_all_four_kinds_of_method_work(start: Start) -> None:
    async def many(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        for part in request.value.split():
            yield StringValue(value=part)

    async def upper(requests: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield StringValue(value=request.value.upper())

    methods = {
        "Echo": ("unary_unary", echo),
        "Many": ("unary_stream", many),
        "Join": ("stream_unary", join),
        "Upper": ("stream_stream", upper),
    }
    two = [StringValue(value="a"), StringValue(value="b")]
    async with start(methods) as peer:
        assert (await call(peer.method("Echo"), HELLO, timeout=60)).value == "hello"
        parts = stream(peer.method("Many", "unary_stream"), StringValue(value="a b"), timeout=60)
        assert [part.value async for part in parts] == ["a", "b"]
        assert (await peer.method("Join", "stream_unary")(iter(two))).value == "a b"
        assert [r.value async for r in peer.method("Upper", "stream_stream")(iter(two))] == ["A", "B"]
        for name in methods:
            assert peer.calls(name, "OK") == 1


async def test_a_request_over_8_mib_is_refused_by_name_and_the_channel_goes_on(start: Start) -> None:
    async with start({"Echo": ("unary_unary", echo)}) as peer:
        with pytest.raises(MessageTooLarge) as caught:
            await call(peer.method("Echo"), StringValue(value="x" * (8 * 1024 * 1024)), timeout=60)
        assert caught.value.metadata == {"limit_bytes": str(8 * 1024 * 1024)}
        just_right = StringValue(value="x" * (8 * 1024 * 1024 - 100))
        assert (await call(peer.method("Echo"), just_right, timeout=60)) == just_right


async def test_calls_beyond_the_bound_are_refused_not_queued(start: Start) -> None:
    others_ended = asyncio.Event()

    async def slow(request: StringValue, context: Any) -> StringValue:
        await others_ended.wait()
        return request

    settings = ServiceSettings(max_concurrent_rpcs=2, drain_timeout=1)
    async with start({"Slow": ("unary_unary", slow)}, settings=settings) as peer:
        calls = [asyncio.ensure_future(call(peer.method("Slow"), HELLO, timeout=60)) for _ in range(5)]
        async with asyncio.timeout(60):
            while sum(one.done() for one in calls) < 3:
                await asyncio.wait([one for one in calls if not one.done()], return_when=asyncio.FIRST_COMPLETED)
        others_ended.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
    assert len(refused) == 3
    assert refused[0].retry_after is not None
    assert [outcome for outcome in outcomes if not isinstance(outcome, Exception)] == [HELLO, HELLO]


@pytest.mark.slow
async def test_the_deadline_reaches_the_server_and_ends_the_call(start: Start) -> None:
    left: list[float | None] = []
    ended = asyncio.Event()

    async def slow(request: StringValue, context: Any) -> StringValue:
        left.append(remaining(context))
        context.add_done_callback(lambda _: ended.set())
        await asyncio.sleep(30)
        return request

    async with start({"Slow": ("unary_unary", slow)}) as peer:
        with pytest.raises(DeadlineExceeded):
            await call(peer.method("Slow"), HELLO, timeout=3)
        await asyncio.wait_for(ended.wait(), 60)
        counted = [peer.calls("Slow", code) for code in ("DEADLINE_EXCEEDED", "CANCELLED")]  # by whose clock was first
        assert [count for count in counted if count] == [1]
    assert left[0] is not None
    assert 0 < left[0] < 3.1  # the timeout is rounded up on the wire


@pytest.mark.parametrize(
    ("left", "code"), [(0.0, "DEADLINE_EXCEEDED"), (0.04, "DEADLINE_EXCEEDED"), (1.0, "CANCELLED"), (None, "CANCELLED")]
)
def test_a_cancel_at_the_deadline_is_told_from_a_cancel(left: float | None, code: str) -> None:
    class Context:
        def time_remaining(self) -> float | None:
            return left

    context: Any = Context()
    assert status_name(context, asyncio.CancelledError()) == code


async def test_without_a_deadline_nothing_remains_to_be_told(start: Start) -> None:
    async def tell(request: StringValue, context: Any) -> StringValue:
        return StringValue(value=repr(remaining(context)))

    async with start({"Tell": ("unary_unary", tell)}) as peer:
        assert (await call(peer.method("Tell"), HELLO, timeout=None)).value == "None"


async def test_leaving_a_stream_early_cancels_it_at_the_server(start: Start) -> None:
    closed = asyncio.Event()

    async def watch(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        try:
            yield StringValue(value="one")
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with start({"Watch": ("unary_stream", watch)}) as peer:
        responses = stream(peer.method("Watch", "unary_stream"), HELLO, timeout=None)
        assert (await anext(responses)).value == "one"
        await responses.aclose()
        await asyncio.wait_for(closed.wait(), 60)
        assert peer.calls("Watch", "CANCELLED") == 1


async def test_a_stream_is_closed_before_its_call_counts_as_ended(start: Start) -> None:
    closed = asyncio.Event()

    async def flood(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        try:
            while True:
                yield StringValue(value="x" * 1_000_000)
        finally:
            await asyncio.sleep(0.05)
            closed.set()

    ends: list[bool] = []

    class Watching(HandlerInterceptor):
        def wrap(self, method: str, behavior: Behavior) -> Behavior:
            async def watched(request: Any, context: Any) -> Any:
                try:
                    return await behavior(request, context)
                finally:
                    ends.append(closed.is_set())

            return watched

    async with start({"Flood": ("unary_stream", flood)}, interceptors=[Watching()]) as peer:
        call_unread = peer.method("Flood", "unary_stream")(HELLO)
        await asyncio.sleep(0.2)  # now the server waits for the client to read
        call_unread.cancel()
        await asyncio.wait_for(closed.wait(), 60)
    assert ends == [True]


async def test_a_method_is_wrapped_once(start: Start) -> None:
    wrapped: list[str] = []

    class Counting(HandlerInterceptor):
        def wrap(self, method: str, behavior: Behavior) -> Behavior:
            wrapped.append(method)
            return behavior

    async with start({"Echo": ("unary_unary", echo)}, interceptors=[Counting()]) as peer:
        for _ in range(3):
            await call(peer.method("Echo"), HELLO, timeout=60)
    assert wrapped == ["/test.Echo/Echo"]


async def test_one_line_a_call_tells_status_and_reason_but_no_content(start: Start) -> None:
    with capture_logs() as logs:
        async with start({"Echo": ("unary_unary", echo), "Busy": ("unary_unary", busy)}) as peer:
            await call(peer.method("Echo"), HELLO, timeout=60)
            await failure(peer.method("Busy")(HELLO))
    lines = [(line["log_level"], line["method"], line["code"], line["reason"]) for line in logs if "method" in line]
    assert lines == [("info", "test.Echo/Echo", "OK", None), ("info", "test.Echo/Busy", "ABORTED", "SESSION_BUSY")]
    assert "hello" not in repr(logs)


async def test_calls_are_counted_by_method_and_status(start: Start) -> None:
    methods = {"Echo": ("unary_unary", echo), "Busy": ("unary_unary", busy), "Crash": ("unary_unary", crash)}
    async with start(methods) as peer:
        for _ in range(3):
            await call(peer.method("Echo"), HELLO, timeout=60)
        await failure(peer.method("Busy")(HELLO))
        await failure(peer.method("Crash")(HELLO))
        await failure(peer.method("Nowhere")(HELLO))
        assert peer.calls("Echo", "OK") == 3
        assert peer.calls("Busy", "ABORTED") == 1
        assert peer.calls("Crash", "INTERNAL") == 1
        assert "Nowhere" not in repr(list(peer.registry.collect())), "a caller must not be able to make up labels"


async def after_one(method: Any, request: Any) -> Any:
    """Sends one message and no end of stream: grpcio fails a write that meets the call's end in its own words."""
    responding = method()
    await responding.write(request)
    return await responding


async def rest_of(responses: AsyncIterator[StringValue]) -> list[StringValue]:
    return [response async for response in responses]


async def failure(responding: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await responding
    return caught.value
