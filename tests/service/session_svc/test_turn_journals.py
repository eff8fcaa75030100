"""The journal of a turn over real gRPC and real Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from parley.session.v1 import turn_event_pb2, turn_service_pb2
from parley.session.v1.turn_event_pb2 import TurnEvent
from parley.session.v1.turn_service_pb2 import TurnLease
from tests.service.session_svc.replica import Replica, refused

SESSION = "s1"


def text(content: str, step: int = 1) -> TurnEvent:
    return TurnEvent(step=step, attempt=1, delta=turn_event_pb2.AnswerDelta(content=content))


def committed() -> TurnEvent:
    return TurnEvent(ended=turn_event_pb2.TurnEnded(committed=turn_event_pb2.TurnCommitted(model="m")))


async def append(svc: Replica, lease: TurnLease, *events: TurnEvent, first: int = 1) -> str:
    request = turn_service_pb2.AppendTurnEventsRequest(lease=lease, first_sequence=first, events=events)
    return (await svc.turns.AppendTurnEvents(request)).last_event_id


async def watch(svc: Replica, lease: TurnLease, after: str = "") -> AsyncIterator[TurnEvent]:
    request = turn_service_pb2.WatchTurnRequest(
        session_id=lease.session_id, turn_id=lease.turn_id, after_event_id=after
    )
    async for response in svc.turns.WatchTurn(request, timeout=60):
        for event in response.events:
            yield event


async def test_a_watch_gives_what_is_there_and_what_comes_until_the_end(svc: Replica) -> None:
    begun = await svc.begin(SESSION)
    await append(svc, begun.lease, text("a"), text("b"))
    seen: list[TurnEvent] = []
    watched = asyncio.create_task(_collect(svc, begun.lease, seen))
    await _until(lambda: len(seen) == 2)
    await append(svc, begun.lease, text("c"), first=3)
    await _until(lambda: len(seen) == 3)
    answer = await svc.commit(begun, "one", end_event=committed())
    await asyncio.wait_for(watched, 60)
    assert [event.delta.content for event in seen[:3]] == ["a", "b", "c"]
    end = seen[3].ended.committed
    assert (end.model, end.turn_number, end.session_expire_time) == ("m", 1, answer.expire_time)
    assert [event.id async for event in watch(svc, begun.lease, seen[1].id)] == [event.id for event in seen[2:]]


async def test_a_turn_that_fails_says_why(svc: Replica) -> None:
    begun = await svc.begin(SESSION)
    await append(svc, begun.lease, text("a"))
    end = TurnEvent(ended=turn_event_pb2.TurnEnded(failure=b"status"))
    await svc.turns.AbortTurn(turn_service_pb2.AbortTurnRequest(lease=begun.lease, end_event=end))
    events = [event async for event in watch(svc, begun.lease)]
    assert [event.WhichOneof("event") for event in events] == ["delta", "ended"]
    assert events[1].ended.failure == b"status"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"events": []}, {"events"}),
        ({"events": [TurnEvent(step=1)], "first_sequence": 0}, {"events[0]", "first_sequence"}),
        ({"events": [committed()]}, {"events[0]"}),
        ({"events": [text("x")] * 257}, {"events"}),
        ({"events": [text("x" * 600_000)] * 2}, {"events"}),
    ],
)
async def test_bad_events_are_refused_by_name(svc: Replica, fields: dict[str, object], named: set[str]) -> None:
    begun = await svc.begin(SESSION)
    request = turn_service_pb2.AppendTurnEventsRequest(lease=begun.lease, **{"first_sequence": 1, **fields})  # type: ignore[arg-type]
    with refused("INVALID_FIELD") as outcome:
        await svc.turns.AppendTurnEvents(request)
    assert {violation.field for violation in outcome.error.violations} == named


async def test_an_unknown_turn_is_not_found(svc: Replica) -> None:
    begun = await svc.begin(SESSION)
    with refused("TURN_NOT_FOUND"):
        [event async for event in watch(svc, begun.lease)]


async def test_a_journal_key_of_a_wrong_type_costs_no_turn(svc: Replica, redis_url: str) -> None:
    begun = await svc.begin(SESSION)
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{{default:{SESSION}}}:journal", "junk")
    await append(svc, begun.lease, text("a"))
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{{default:{SESSION}}}:journal", "junk")
    assert (await svc.commit(begun, end_event=committed())).turn_number == 1


async def _collect(svc: Replica, lease: TurnLease, into: list[TurnEvent]) -> None:
    async for event in watch(svc, lease):
        into += [event]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)
