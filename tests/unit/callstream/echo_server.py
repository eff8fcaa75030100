"""A server of the echo service that does as the test says, and a client of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc

from callstream.client import CallStreamClient
from servicekit.channels import open_channel
from servicekit.errors import Code, ServiceError
from servicekit.rpc_status import to_status
from tests.unit.callstream import echo
from tests.unit.callstream.echo import COUNT, ECHO, PROTOCOL


class Busy(ServiceError):
    code = Code.ABORTED
    reason = "SESSION_BUSY"


class Server:
    """A service of few words: answers what `silent` is not, and remembers how it was asked."""

    def __init__(self) -> None:
        self.streams = 0
        self.ended = 0
        self.messages: list[Any] = []
        self.unary = 0
        self.left = 0.0
        self.silent = False
        self.by_stream: Counter[int] = Counter()
        self.contexts: list[Any] = []
        self.port = 0

    @property
    def calls(self) -> int:
        return sum(len(message.calls) for message in self.messages)

    async def calls_stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        self.streams += 1
        number = self.streams
        self.contexts.append(context)
        try:
            await context.write(echo.Answers())
            async for message in requests:
                self.messages.append(message)
                self.by_stream[number] += len(message.calls)
                if any(call.echo.text == "break" for call in message.calls):
                    await context.abort(grpc.StatusCode.INTERNAL, "broken")
                if not self.silent:
                    await context.write(echo.Answers(results=[answer_of(call) for call in message.calls]))
        finally:
            self.ended += 1

    async def echo(self, request: Any, context: Any) -> Any:
        self.unary += 1
        self.left = context.time_remaining()
        return echo.EchoResponse(text="unary")

    async def count(self, request: Any, context: Any) -> Any:
        self.unary += 1
        return echo.CountResponse(number=len(request.text))


def answer_of(call: Any) -> Any:
    if call.echo.text == "busy":
        return echo.Result(id=call.id, failure=to_status(Busy("busy", retry_after=2)).SerializeToString())
    return echo.Result(id=call.id, echo=echo.EchoResponse(text=call.echo.text))


@asynccontextmanager
async def serving(*, with_streams: bool = True) -> AsyncIterator[Server]:
    made, server = Server(), grpc.aio.server()
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(
            made.echo, echo.EchoRequest.FromString, echo.EchoResponse.SerializeToString
        ),
        "Count": grpc.unary_unary_rpc_method_handler(
            made.count, echo.CountRequest.FromString, echo.CountResponse.SerializeToString
        ),
    }
    if with_streams:
        handlers["Calls"] = grpc.stream_stream_rpc_method_handler(
            made.calls_stream, echo.Calls.FromString, echo.Answers.SerializeToString
        )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(PROTOCOL.service, handlers),))
    made.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield made
    finally:
        await server.stop(0)


@asynccontextmanager
async def calling(
    *servers: Server, streams: int = 1, up: int | None = None, age: float = 60
) -> AsyncIterator[CallStreamClient]:
    async with AsyncExitStack() as stack:
        target = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        channel = await stack.enter_async_context(open_channel(target))
        opened = await stack.enter_async_context(
            CallStreamClient(PROTOCOL, (ECHO, COUNT), channel, peer="echo_svc", streams=streams, age_seconds=age).open()
        )
        await until(lambda: len(opened.streams) == (streams if up is None else up))
        yield opened


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def asking(text: str = "", timeout: float = 60) -> Any:
    return echo.EchoRequest(text=text), timeout
