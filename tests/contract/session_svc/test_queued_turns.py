"""Turns that are queued, cancelled or joined by a repeat of their request: what every store promises of them."""

from collections.abc import AsyncIterator

import pytest

from contract.enums import BusyPolicy
from session_svc.model.errors import (
    IdempotencyKeyReused,
    LeaseLost,
    ProjectQueueFull,
    TurnCancelled,
    TurnInterrupted,
    TurnNotFound,
)
from session_svc.model.journal import NewEvents, TurnStage, UnheardEnd
from session_svc.model.session import SessionKey
from session_svc.model.turn import Joined, RequestMark, Waiting
from tests.contract.session_svc.bench import Bench
from tests.contract.session_svc.claimed_turns import (
    BOUNDS,
    STORES,
    begun,
    claimed,
    claims,
    end_of,
    forget,
    lose_gateway,
    open_bench,
    progress,
    queued,
    watch,
)


@pytest.fixture(params=STORES)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with open_bench(request) as made:
        yield made


async def test_a_queued_turn_is_handed_over_again_after_it_was_taken(bench: Bench) -> None:
    """The answer of the first call was lost, and another gateway was quicker than the second."""
    lease = (await begun(bench)).lease
    await claims(bench).hand_over(lease, queued=True)
    taken = await claimed(bench)
    await claims(bench).hand_over(lease, queued=True)
    assert await claims(bench).claim() is None, "it runs"
    await bench.turns.renew(taken.lease)
    await bench.commit(await bench.begun("t1"), end_event=b"end")
    await claims(bench).hand_over(lease, queued=True)
    assert await claims(bench).claim() is None
    await bench.turn("t2")


async def test_a_turn_that_ended_before_it_was_queued_is_not(bench: Bench) -> None:
    lease = (await begun(bench)).lease
    await bench.begun("t2", busy=BusyPolicy.INTERRUPT)
    await lose_gateway(bench)
    with pytest.raises((LeaseLost, TurnInterrupted)):
        await claims(bench).hand_over(lease, queued=True)


async def test_queued_turns_of_several_projects_take_turns(bench: Bench) -> None:
    for number in range(3):
        await queued(bench, f"a{number}", f"s{number}", project="a")
    await queued(bench, "b0", project="b")
    assert (await progress(bench, "b0", "s1", "", "b")).stage is TurnStage.QUEUED
    found = [await claimed(bench) for _ in range(4)]
    assert [one.lease.turn_id for one in found] == ["a0", "b0", "a1", "a2"]
    assert {one.attempt for one in found} == {1}
    assert (await progress(bench, "b0", "s1", "", "b")).stage is TurnStage.RUNNING
    assert await claims(bench).claim() is None


async def test_a_project_that_comes_later_does_not_come_first(bench: Bench) -> None:
    for number in range(3):
        await queued(bench, f"a{number}", f"s{number}", project="a")
    assert [(await claimed(bench)).lease.turn_id for _ in range(2)] == ["a0", "a1"]
    await queued(bench, "b0", project="b")
    assert [(await claimed(bench)).lease.turn_id for _ in range(2)] == ["a2", "b0"]


async def test_the_queue_of_a_project_is_bounded(bench: Bench) -> None:
    for number in range(BOUNDS.pickup.queued):
        await queued(bench, f"t{number}", f"s{number}")
    turn = await begun(bench, "more", "other")
    with pytest.raises(ProjectQueueFull):
        await claims(bench).hand_over(turn.lease, queued=True)
    await bench.turns.abort(turn.lease, b"end")
    await queued(bench, "b0", project="b")
    await claimed(bench)
    await claimed(bench)
    assert claims(bench).queued == BOUNDS.pickup.queued - 1
    await queued(bench, "again", "other")


async def test_queued_turns_are_counted_where_no_gateway_claims_any(bench: Bench) -> None:
    """Gateways that have no room claim none, just when turns queue up."""
    for number in range(2):
        await queued(bench, f"t{number}", f"s{number}")
    await claims(bench).keep_up()
    assert claims(bench).queued == 2


async def test_a_queued_turn_is_cancelled_at_once(bench: Bench) -> None:
    await queued(bench, user="ann")
    with pytest.raises(TurnNotFound):
        await claims(bench).cancel(watch(user="bob"))
    assert await claims(bench).cancel(watch(user="ann"))
    assert await claims(bench).cancel(watch(user="ann"))
    assert await end_of(bench, "t1", "s1", "ann") is UnheardEnd.CANCELLED
    assert await claims(bench).claim() is None
    await bench.turn("t2", user="ann")


async def test_a_running_turn_is_ended_by_whoever_runs_it(bench: Bench) -> None:
    await bench.turn("t0")
    turn = await begun(bench)
    assert not await claims(bench).cancel(watch())
    with pytest.raises(TurnCancelled):
        await bench.turns.renew(turn.lease)
    with pytest.raises(TurnCancelled):
        await bench.journals.append(NewEvents(turn.lease, 2, (b"more",)))
    assert not await claims(bench).cancel(watch())
    await bench.turns.abort(turn.lease, b"cancelled")
    assert await claims(bench).cancel(watch())
    await bench.turn("t2")


async def test_a_cancelled_turn_whose_gateway_is_lost_is_not_taken_over(bench: Bench) -> None:
    await bench.turn("t0")
    await begun(bench)
    await claims(bench).cancel(watch())
    await lose_gateway(bench)
    assert await claims(bench).claim() is None
    assert await end_of(bench) is UnheardEnd.CANCELLED


async def test_a_plain_turn_is_cancelled_too(bench: Bench) -> None:
    await bench.turn("t0")
    turn = await bench.begun()
    assert (await progress(bench)).stage is TurnStage.RUNNING
    assert not await claims(bench).cancel(watch())
    with pytest.raises(TurnCancelled):
        await bench.turns.renew(turn.lease)
    await bench.turns.abort(turn.lease)
    with pytest.raises(TurnNotFound):
        await claims(bench).cancel(watch())
    await bench.turn("t2")


async def test_a_repeat_joins_the_turn_of_its_request(bench: Bench) -> None:
    mark = RequestMark("r1", b"d" * 32)
    await queued(bench, request=mark)
    assert await bench.begin("t2", request=mark, join_repeat=True) == Joined(SessionKey("default", "s1"), "t1")
    with pytest.raises(IdempotencyKeyReused):
        await bench.begin("t3", request=RequestMark("r1", b"e" * 32), join_repeat=True)
    assert isinstance(await bench.begin("t4", request=mark, wait_ms=1_000), Waiting)


async def test_a_turn_that_the_index_has_lost_is_found_again_by_a_repeat_that_joins_it(bench: Bench) -> None:
    mark = RequestMark("r1", b"d" * 32)
    await begun(bench, request=mark)
    await forget(bench)
    await lose_gateway(bench)
    assert await claims(bench).claim() is None
    assert isinstance(await bench.begin("t2", request=mark, join_repeat=True), Joined)
    await claims(bench).keep_up()
    await lose_gateway(bench)
    assert (await claimed(bench)).lease.turn_id == "t1"
