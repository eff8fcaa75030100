"""How much Python session_svc runs for the two calls of a plain turn: counted, since time varies with the machine."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from parley.session.v1 import message_pb2
from parley.session.v1 import turn_service_pb2 as pb
from session_svc.branches import Branches
from session_svc.claim_waits import ClaimWaits
from session_svc.claims import Claims
from session_svc.edge.turn_servicer import TurnServicer, make_streams
from session_svc.journal import Journals
from session_svc.metrics import Metrics
from session_svc.turn_limits import TurnLimiter
from session_svc.turns import Turns
from tests.contract.session_svc.bench import Bench, redis_bench
from tests.doubles.python_calls import PythonCalls
from tests.service.session_svc.replica import UID, say

MAX_CALLS = 320
"""Some 5 % more than there are. A feature that a plain turn does not use costs it nothing."""
WARM, TURNS = 12, 40
"""The first fill caches and the window. Of the others, the one with the fewest calls had no timer in it."""


class Caller:
    """Both ends of a stream of calls, without sockets: the context that session_svc writes to, and its requests."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[pb.TurnsRequest | None] = asyncio.Queue()
        self._answers: asyncio.Queue[pb.TurnsResponse] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        if data:
            self._answers.put_nowait(pb.TurnsResponse.FromString(data))

    async def requests(self) -> AsyncIterator[pb.TurnsRequest]:
        while (message := await self._asked.get()) is not None:
            yield message

    async def call(self, call_id: int, **request: Any) -> pb.TurnResult:
        self._asked.put_nowait(pb.TurnsRequest(calls=[pb.TurnCall(id=call_id, timeout_ms=60_000, **request)]))
        async with asyncio.timeout(60):
            [result] = (await self._answers.get()).results
        assert not result.failure
        return result

    def leave(self) -> None:
        self._asked.put_nowait(None)


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    async with redis_bench(redis_url) as made:
        yield made


async def test_a_plain_turn_calls_no_more_python_than_it_did(bench: Bench) -> None:
    metrics, limits = Metrics(CollectorRegistry()), TurnLimiter(bench.turn_limits, lease_ms=bench.limits.lease_ms)
    turns = Turns(bench.turns, limits, metrics)
    assert bench.claims is not None
    servicer: Any = TurnServicer(
        turns,
        Branches(turns, bench.sessions),
        Journals(bench.journals),
        None,  # type: ignore[arg-type]
        Claims(bench.claims, limits, metrics, ClaimWaits(bench.claims, max_waits=1)),
        None,  # type: ignore[arg-type]
    )
    caller: Any = Caller()
    serving = asyncio.create_task(make_streams(servicer).serve(caller.requests(), caller))
    counts = list[PythonCalls]()
    for number in range(TURNS):
        counted = PythonCalls()
        with counted.counting():
            await _turn(caller, number)
        counts.append(counted)
    caller.leave()
    await asyncio.wait_for(serving, 60)
    least = min(counts[WARM:], key=lambda counted: counted.number)
    assert least.number <= MAX_CALLS, least.called.most_common()


async def _turn(caller: Caller, number: int) -> None:
    begin = pb.BeginTurnRequest(
        session_id="s1", agent_id="hello", agent_uid=UID, turn_id=f"t{number}", window_messages=20
    )
    begun = (await caller.call(2 * number + 1, begin=begin)).begin
    turn = message_pb2.Turn(id=f"t{number}", messages=say("hi"))
    commit = pb.CommitTurnRequest(lease=begun.lease, turn=turn)
    await caller.call(2 * number + 2, commit=commit)
