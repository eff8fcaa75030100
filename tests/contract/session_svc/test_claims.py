"""Turns that another gateway goes on with: what every store promises of them."""

import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from contract.enums import BusyPolicy
from session_svc.model.errors import (
    LeaseLost,
    SessionBusy,
    SessionNotFound,
    TurnInterrupted,
    TurnNotFound,
)
from session_svc.model.journal import NewEvents, TurnStage, UnheardEnd
from session_svc.model.session import Purge, Removed, SessionKey
from session_svc.model.turn import Lease, Waiting
from tests.contract.session_svc.bench import UID, Bench, redis_bench
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


async def test_what_a_turn_can_be_continued_from_is_read_if_asked_for(bench: Bench) -> None:
    await begun(bench)
    assert (await progress(bench)).request == b""
    assert (await claims(bench).progress(watch(), with_request=True)).request == b"request of t1"


async def test_a_turn_whose_gateway_is_lost_is_taken_over_with_its_request(bench: Bench) -> None:
    await bench.turn("t0")
    first = await begun(bench)
    assert await claims(bench).claim() is None
    await lose_gateway(bench)
    found = await claimed(bench)
    assert (found.lease.key, found.lease.turn_id) == (first.lease.key, "t1")
    assert (found.request, found.attempt) == (b"request of t1", 2)
    assert found.lease.token > first.lease.token
    assert await claims(bench).claim() is None
    with pytest.raises(LeaseLost):
        await bench.journals.append(NewEvents(first.lease, 2, (b"late",)))
    await bench.turns.abort(first.lease, b"late end")
    with pytest.raises(LeaseLost):
        await bench.commit(first)
    again = await bench.begun("t1")
    assert again.lease.token == found.lease.token
    assert len(again.window) == 1
    await bench.journals.append(NewEvents(found.lease, 1, (b"resumed",)))
    page = await bench.journals.read(watch(), "w.1")
    assert [event.data for event in page.events] == [b"begun", b"resumed"]
    await bench.commit(again, end_event=b"end")
    await lose_gateway(bench)
    assert await claims(bench).claim() is None


@pytest.mark.parametrize("hours", [3, -3])
async def test_a_session_svc_whose_clock_is_hours_off_has_a_lost_turn_taken_over_in_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    clock = SimpleNamespace(time=lambda: time.time() + hours * 3600, monotonic=time.monotonic)
    monkeypatch.setattr("session_svc.redis_store.indexes.time", clock)
    turn = await begun(bench)
    await bench.turns.renew(turn.lease)
    await claims(bench).keep_up()
    assert await claims(bench).claim() is None, "it is held"
    await lose_gateway(bench)
    await claimed(bench)


async def test_the_first_turn_of_a_session_is_taken_over_too(bench: Bench) -> None:
    await begun(bench)
    await lose_gateway(bench)
    await claimed(bench)
    again = await bench.begun("t1")
    assert again.created
    assert (await bench.commit(again)).turn_number == 1


async def test_renewals_keep_a_turn_from_being_taken_over(bench: Bench) -> None:
    turn = await begun(bench)
    for _ in range(3):
        await bench.pass_time(BOUNDS.lease_ms - 1)
        await bench.turns.renew(turn.lease)
        await claims(bench).keep_up()
        await bench.pass_time(2)
        assert await claims(bench).claim() is None
    await lose_gateway(bench)
    await claimed(bench)


async def test_a_turn_that_the_index_has_lost_is_found_again_by_its_renewal(bench: Bench) -> None:
    turn = await begun(bench)
    await forget(bench)
    await bench.turns.renew(turn.lease)
    await claims(bench).keep_up()
    await lose_gateway(bench)
    await claimed(bench)


async def test_a_holder_that_nobody_has_replaced_goes_on(bench: Bench) -> None:
    turn = await begun(bench)
    await lose_gateway(bench)
    await bench.turns.renew(turn.lease)
    assert await claims(bench).claim() is None
    await bench.commit(turn)


async def test_others_wait_for_the_turn_that_is_to_be_taken_over_but_not_forever(bench: Bench) -> None:
    await bench.turn("t0")
    await begun(bench, idle_ms=600_000)
    await lose_gateway(bench)
    with pytest.raises(SessionBusy):
        await bench.begin("t2", busy=BusyPolicy.REJECT)
    assert isinstance(await bench.begin("t2", wait_ms=1_000), Waiting)
    await bench.pass_time(BOUNDS.pickup.wait_ms)
    await bench.begun("t2", idle_ms=600_000)
    assert await end_of(bench) is UnheardEnd.LOST
    assert await claims(bench).claim() is None


async def test_a_turn_that_nobody_can_take_over_keeps_its_session_for_one_lease(bench: Bench) -> None:
    """Even if the one before it kept the session longer: that one has ended."""
    await bench.turn("t0")
    await begun(bench, idle_ms=600_000)
    await bench.pass_time(BOUNDS.lease_ms + BOUNDS.pickup.wait_ms + 1)
    assert not (await bench.begun("t2", idle_ms=600_000)).created
    await lose_gateway(bench)
    assert not (await bench.begun("t3")).created


@pytest.mark.parametrize("before", ["t0", ""])
async def test_another_turn_may_interrupt_one_that_nobody_runs(bench: Bench, before: str) -> None:
    if before:
        await bench.turn(before)
    await queued(bench)
    turn = await bench.begun("t2", busy=BusyPolicy.INTERRUPT)
    assert await end_of(bench) is UnheardEnd.INTERRUPTED
    assert await claims(bench).claim() is None
    await bench.commit(turn)


async def test_a_turn_that_was_interrupted_while_its_gateway_was_lost_ends(bench: Bench) -> None:
    await bench.turn("t0")
    first = await begun(bench)
    await bench.begun("t2", busy=BusyPolicy.INTERRUPT)
    await lose_gateway(bench)
    assert await claims(bench).claim() is None
    assert await end_of(bench) is UnheardEnd.INTERRUPTED
    with pytest.raises(TurnInterrupted):
        await bench.turns.renew(first.lease)


async def test_a_turn_that_is_handed_over_is_taken_over_at_once_and_counts_no_loss(bench: Bench) -> None:
    await bench.turn("t0")
    lease = (await begun(bench)).lease
    for number in range(4):
        await claims(bench).hand_over(lease, queued=False)
        await claims(bench).hand_over(lease, queued=False)
        with pytest.raises(LeaseLost):
            await bench.turns.renew(lease)
        found = await claimed(bench)
        lease, attempt = found.lease, found.attempt
        assert attempt == number + 2


async def test_a_turn_without_a_request_is_not_handed_over(bench: Bench) -> None:
    turn = await bench.begun()
    with pytest.raises(LeaseLost):
        await claims(bench).hand_over(turn.lease, queued=False)
    await bench.turns.renew(turn.lease)


async def test_a_turn_that_loses_one_gateway_after_the_other_is_given_up(bench: Bench) -> None:
    await bench.turn("t0")
    await begun(bench, idle_ms=600_000)
    await lose_gateway(bench)
    await claimed(bench)
    await lose_gateway(bench)
    assert await claims(bench).claim() is None
    assert await end_of(bench) is UnheardEnd.GIVEN_UP
    await bench.turn("t2")


async def test_a_turn_of_a_session_that_is_deleted_is_forgotten(bench: Bench) -> None:
    await queued(bench)
    await bench.sessions.delete(SessionKey("default", "s1"))
    assert await claims(bench).claim() is None
    with pytest.raises(TurnNotFound):
        await progress(bench)
    with pytest.raises(LeaseLost):
        await claims(bench).hand_over(Lease(SessionKey("default", "s1"), "t1", 1), queued=False)


@pytest.mark.parametrize("request_of", [b"", b"request"])
async def test_no_turn_leaves_its_session_without_a_word(bench: Bench, request_of: bytes) -> None:
    await bench.turn("t0")
    turn = await bench.begun("t1")
    await bench.journals.append(NewEvents(turn.lease, 1, (b"begun",), request_of))
    await bench.turns.abort(turn.lease, b"")
    assert await end_of(bench) is UnheardEnd.LOST
    turn = await bench.begun("t2")
    await bench.journals.append(NewEvents(turn.lease, 1, (b"begun",), request_of))
    await bench.turns.abort(Lease(turn.lease.key, "t2", 0), b"")  # by who did not hear that it has begun
    assert await end_of(bench, "t2") is UnheardEnd.LOST
    turn = await bench.begun("t3")
    await bench.journals.append(NewEvents(turn.lease, 1, (b"begun",), request_of))
    turn = await bench.begun("t4", busy=BusyPolicy.INTERRUPT, idle_ms=10**7)
    assert await end_of(bench, "t3") is UnheardEnd.INTERRUPTED
    await bench.journals.append(NewEvents(turn.lease, 1, (b"begun",), request_of))
    await bench.pass_time(BOUNDS.lease_ms + BOUNDS.pickup.wait_ms + 1)
    await bench.begun("t5")
    assert await end_of(bench, "t4") is UnheardEnd.LOST


async def test_a_turn_that_failed_is_known_when_the_next_one_makes_the_session(bench: Bench) -> None:
    turn = await begun(bench, user="ann")
    await bench.turns.abort(turn.lease, b"failed")
    await bench.turn("t2", user="ann")
    found = await progress(bench, "t1", "s1", "ann")
    assert found.ended is not None
    assert found.ended.data == b"failed"


async def test_one_of_another_user_is_not(bench: Bench) -> None:
    turn = await begun(bench, user="ann")
    await bench.turns.abort(turn.lease, b"failed")
    await bench.turn("t2", user="bob")
    for user in ("ann", "bob"):
        with pytest.raises(TurnNotFound):
            await progress(bench, "t1", "s1", user)


async def test_a_turn_that_is_begun_again_stays_with_whoever_took_it_over(bench: Bench) -> None:
    """BeginTurn of a turn that was taken over, without an answer: its caller leaves, and holds the lease on."""
    await begun(bench)
    await lose_gateway(bench)
    taken = await claimed(bench)
    waiter = bench.turns.new_waiter_id()
    await bench.begin("t1", waiter_id=waiter)
    await bench.turns.leave(taken.lease.key, waiter)
    await bench.journals.append(NewEvents(taken.lease, 1, (b"more",)))
    assert (await progress(bench)).stage is TurnStage.RUNNING


async def test_a_turn_that_is_begun_again_does_not_interrupt_itself(bench: Bench) -> None:
    """BeginTurn of a turn that was taken over, the first of its session, after its lease has expired."""
    ways: dict[str, object] = {"busy": BusyPolicy.INTERRUPT, "idle_ms": 600_000}
    await begun(bench, **ways)
    await lose_gateway(bench)
    taken = await claimed(bench)
    await lose_gateway(bench)
    again = await bench.begun("t1", **ways)
    assert again.lease.token == taken.lease.token
    await bench.journals.append(NewEvents(taken.lease, 1, (b"more",)))
    assert await claims(bench).claim() is None
    await claims(bench).hand_over(taken.lease, queued=False)
    with pytest.raises(LeaseLost):
        await bench.begun("t1", **ways)
    await bench.pass_time(BOUNDS.lease_ms + BOUNDS.pickup.wait_ms + 1)
    await bench.begun("t2")
    assert await end_of(bench) is UnheardEnd.LOST


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_turn_that_has_ended_is_not_begun_again(bench: Bench, *, is_first: bool) -> None:
    """BeginTurn of a turn that was taken over and then interrupted: it arrives after that, and finds the session free,
    gone, or another turn in it, which it does not interrupt.
    """
    ways: dict[str, object] = {"busy": BusyPolicy.INTERRUPT}
    if not is_first:
        await bench.turn("t0")
    await queued(bench, **ways)
    await claimed(bench)
    other = await bench.begun("t2", **ways)
    for _ in range(2):
        with pytest.raises(LeaseLost):
            await bench.begun("t1", **ways)
        assert await end_of(bench) is UnheardEnd.INTERRUPTED
        await bench.turns.abort(other.lease)
    third = await bench.begun("t3")
    assert third.created is is_first
    await bench.commit(third)
    with pytest.raises(LeaseLost):
        await bench.begun("t1", **ways)
    assert await end_of(bench) is UnheardEnd.INTERRUPTED


async def test_who_lost_a_turn_does_not_hide_it_from_those_who_look_for_it(bench: Bench) -> None:
    first = await begun(bench, idle_ms=600_000)
    await lose_gateway(bench)
    await claimed(bench)
    with pytest.raises(LeaseLost):
        await claims(bench).hand_over(first.lease, queued=False)
    await bench.turns.abort(first.lease, b"late")
    await claims(bench).keep_up()
    await lose_gateway(bench)
    assert await claims(bench).claim() is None
    assert await end_of(bench) is UnheardEnd.GIVEN_UP, "it was looked at, and has lost as many gateways as it may"


async def test_a_turn_whose_wait_is_over_is_handed_over_by_the_last_that_ran_it(bench: Bench) -> None:
    await bench.turn("t0")
    turn = await begun(bench)
    await bench.pass_time(BOUNDS.lease_ms + 1)
    await claims(bench).hand_over(turn.lease, queued=False)
    assert (await claimed(bench)).attempt == 2


async def test_asking_for_a_turn_that_nobody_runs_has_it_looked_at(bench: Bench) -> None:
    idle = {"idle_ms": 10 * BOUNDS.pickup.wait_ms}
    await bench.commit(await bench.begun("t0", **idle), **idle)
    await begun(bench, **idle)
    await bench.pass_time(BOUNDS.lease_ms + BOUNDS.pickup.wait_ms + 1)
    await forget(bench)
    assert await claims(bench).claim() is None
    assert (await progress(bench)).stage is TurnStage.RUNNING
    assert (await claimed(bench)).attempt == 2


async def test_how_the_turn_ended_that_was_to_make_a_session_stays_where_other_sessions_are_removed(
    bench: Bench,
) -> None:
    """As when the deletion of an earlier agent of the same id is followed late."""
    turn = await begun(bench, user="ann")
    await bench.turns.abort(turn.lease, b"failed")
    for purge in (
        Purge("default", "hello", "5f0c7f0e-0000-4000-8000-0000000000ff"),
        Purge("default", user_id="bob"),
        Purge("default", "hello", idle_longer_than_ms=0),
    ):
        assert await bench.sessions.purge(purge) == Removed(0, 0)
    with pytest.raises(SessionNotFound):
        await bench.sessions.delete(turn.lease.key, "bob")
    found = await claims(bench).progress(watch(user="ann"))
    assert found.stage is TurnStage.ENDED
    assert found.ended is not None
    assert found.ended.data == b"failed"


@pytest.mark.servers
@pytest.mark.parametrize("purge", [Purge("default", "hello", UID), Purge("default", user_id="ann")])
async def test_how_the_turn_ended_goes_with_its_agent_and_its_user(redis_url: str, purge: Purge) -> None:
    async with redis_bench(redis_url, BOUNDS) as bench:
        turn = await begun(bench, user="ann")
        await bench.turns.abort(turn.lease, b"failed")
        await bench.sessions.purge(purge)
        with pytest.raises(TurnNotFound):
            await claims(bench).progress(watch(user="ann"))
