"""session_svc's side of TurnService.Turns, where the caller does what no good one does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from parley.session.v1 import turn_service_pb2 as pb
from session_svc.edge.turn_streams import MAX_UNSENT_BYTES, TurnStreams

ANSWER = pb.BeginTurnResponse(lease=pb.TurnLease(project="x" * 64 * 1024)).SerializeToString()


class Reader:
    """The context of a stream whose caller takes no answer until it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.taken = 0

    async def write(self, data: bytes) -> None:
        if data:
            await self.let.wait()
            self.taken += len(pb.TurnsResponse.FromString(data).results)


async def test_a_caller_that_takes_no_answers_is_not_read_from_without_end() -> None:
    read, asked = 0, 2 * MAX_UNSENT_BYTES // len(ANSWER)

    async def begin(request: pb.BeginTurnRequest, context: Any) -> bytes:
        return ANSWER

    async def requests() -> AsyncIterator[pb.TurnsRequest]:
        nonlocal read
        for number in range(asked):
            read += 1
            yield pb.TurnsRequest(calls=[pb.TurnCall(id=number, begin=pb.BeginTurnRequest())])
            await asyncio.sleep(0)

    reader = Reader()
    stream = asyncio.create_task(TurnStreams({"begin": begin}).turns(requests(), reader))  # type: ignore[arg-type]
    for _ in range(4 * asked):
        await asyncio.sleep(0)
    assert read < asked * 3 // 4
    reader.let.set()
    await asyncio.wait_for(stream, 5)
    assert reader.taken == asked


async def test_calls_are_on_their_way_before_the_next_message_is_asked_for() -> None:
    seen: list[str] = []

    async def begin(request: pb.BeginTurnRequest, context: Any) -> bytes:
        seen.append("begun")
        return b""

    async def requests() -> AsyncIterator[pb.TurnsRequest]:
        yield pb.TurnsRequest(calls=[pb.TurnCall(id=number, begin=pb.BeginTurnRequest()) for number in range(2)])
        seen.append("asked")

    reader = Reader()
    reader.let.set()
    await TurnStreams({"begin": begin}).turns(requests(), reader)  # type: ignore[arg-type]
    assert seen == ["begun", "begun", "asked"]
    assert reader.taken == 2
