"""The answering end, where the caller does what no good one does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from callstream.server import MAX_UNSENT_BYTES, CallStreams
from tests.unit.callstream import echo
from tests.unit.callstream.echo import ECHO, PROTOCOL

ANSWER = echo.EchoResponse(text="x" * 64 * 1024).SerializeToString()


class Reader:
    """The context of a stream whose caller takes no answer until it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.taken = 0

    async def write(self, data: bytes) -> None:
        if data:
            await self.let.wait()
            self.taken += len(echo.Answers.FromString(data).results)


async def test_a_caller_that_takes_no_answers_is_not_read_from_without_end() -> None:
    read, asked = 0, 2 * MAX_UNSENT_BYTES // len(ANSWER)

    async def answer(request: Any, context: Any) -> bytes:
        return ANSWER

    async def requests() -> AsyncIterator[Any]:
        nonlocal read
        for number in range(asked):
            read += 1
            yield echo.Calls(calls=[echo.Call(id=number, echo=echo.EchoRequest())])
            await asyncio.sleep(0)

    reader = Reader()
    stream = asyncio.create_task(CallStreams(PROTOCOL, {ECHO: answer}, name="echo_svc").serve(requests(), reader))  # type: ignore[arg-type]
    for _ in range(4 * asked):
        await asyncio.sleep(0)
    assert read < asked * 3 // 4
    reader.let.set()
    await asyncio.wait_for(stream, 60)
    assert reader.taken == asked


async def test_calls_are_on_their_way_before_the_next_message_is_asked_for() -> None:
    seen: list[str] = []

    async def answer(request: Any, context: Any) -> bytes:
        seen.append("begun")
        return b""

    async def requests() -> AsyncIterator[Any]:
        yield echo.Calls(calls=[echo.Call(id=number, echo=echo.EchoRequest()) for number in range(2)])
        seen.append("asked")

    reader = Reader()
    reader.let.set()
    await CallStreams(PROTOCOL, {ECHO: answer}, name="echo_svc").serve(requests(), reader)  # type: ignore[arg-type]
    assert seen == ["begun", "begun", "asked"]
    assert reader.taken == 2
