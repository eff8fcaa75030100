"""What `TurnStore` promises of a session that is busy, on both adapters: who waits, who interrupts, and repeats."""

import asyncio

import pytest

from contract.enums import BusyPolicy
from session_svc.model.errors import (
    IdempotencyKeyReused,
    SessionBusy,
    TurnInterrupted,
    TurnQueueFull,
)
from session_svc.model.session import SessionKey
from session_svc.model.turn import BeginTurn, Replayed, RequestMark, Waiting
from tests.contract.session_svc.bench import UID, Bench, number_field

KEY = SessionKey("default", "s1")


async def test_waiting_is_first_come_first_served(bench: Bench) -> None:
    running = await bench.begun("t1")
    for turn_id in ("t2", "t3"):
        assert isinstance(await bench.begin(turn_id, wait_ms=60_000), Waiting)
    await bench.commit(running)
    outcome = await bench.begin("t3", wait_ms=60_000)
    assert isinstance(outcome, Waiting), "t2 came first"
    with pytest.raises(SessionBusy):
        await bench.begin("t4", busy=BusyPolicy.REJECT)
    second = await bench.begun("t2", wait_ms=60_000)
    assert len(second.window) == 1
    await bench.commit(second)
    third = await bench.begun("t3", wait_ms=60_000)
    assert len(third.window) == 2


async def test_a_waiter_is_woken(bench: Bench) -> None:
    running = await bench.begun("t1")
    waiter_id = bench.turns.new_waiter_id()
    turn = BeginTurn(KEY, "hello", UID, "t2")
    assert isinstance(await bench.turns.begin(turn, waiter_id, 60_000), Waiting)
    waiting = asyncio.create_task(bench.turns.wait_for_wakeup(waiter_id, 600))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await bench.commit(running)
    async with asyncio.timeout(60):
        await waiting


async def test_a_waiter_that_does_not_come_loses_its_place(bench: Bench) -> None:
    running = await bench.begun("t1")
    await bench.begin("t2", wait_ms=600_000)
    await bench.begin("t3", wait_ms=600_000)
    await bench.commit(running)
    assert isinstance(await bench.begin("t3", wait_ms=600_000), Waiting)
    await bench.pass_time(bench.limits.claim_ms)
    await bench.begun("t3", wait_ms=600_000)


async def test_a_waiter_that_leaves_makes_room(bench: Bench) -> None:
    running = await bench.begun("t1")
    waiter_id = bench.turns.new_waiter_id()
    await bench.turns.begin(BeginTurn(KEY, "hello", UID, "t2"), waiter_id, 60_000)
    await bench.begin("t3", wait_ms=60_000)
    await bench.commit(running)
    await bench.turns.leave(KEY, waiter_id)
    await bench.begun("t3", wait_ms=60_000)


async def test_leaving_gives_back_a_lease_only_to_the_call_that_has_it(bench: Bench) -> None:
    first, second = bench.turns.new_waiter_id(), bench.turns.new_waiter_id()
    turn = BeginTurn(KEY, "hello", UID, "t1")
    await bench.turns.begin(turn, first, 0)
    await bench.turns.begin(turn, second, 0)
    await bench.turns.leave(KEY, first)
    with pytest.raises(SessionBusy):
        await bench.begin("t2", busy=BusyPolicy.REJECT)
    await bench.turns.leave(KEY, second)
    await bench.begun("t2")


async def test_the_queue_is_bounded(bench: Bench) -> None:
    await bench.begun("t0")
    for n in range(bench.limits.queue_per_session):
        assert isinstance(await bench.begin(f"t{n + 1}", wait_ms=60_000), Waiting)
    with pytest.raises(TurnQueueFull) as full:
        await bench.begin("t9", wait_ms=60_000)
    assert full.value.quota_subject
    assert isinstance(await bench.begin("t1", wait_ms=60_000), Waiting), "a place that one has can be kept"


async def test_waiters_outlive_a_holder_that_died(bench: Bench) -> None:
    await bench.turn("t0")
    await bench.begun("t1")
    waiting = await bench.begin("t2", wait_ms=600_000)
    assert isinstance(waiting, Waiting)
    assert 0 < waiting.check_in_ms <= bench.limits.lease_ms
    await bench.pass_time(waiting.check_in_ms)
    assert len((await bench.begun("t2", wait_ms=600_000)).window) == 1


async def test_waiters_go_on_when_the_first_turn_is_aborted(bench: Bench) -> None:
    running = await bench.begun("t1")
    await bench.begin("t2", wait_ms=60_000)
    await bench.turns.abort(running.lease)
    assert isinstance(await bench.begin("t3", wait_ms=60_000), Waiting)
    assert (await bench.begun("t2", wait_ms=60_000)).created


async def test_interrupt_takes_the_lease_at_once(bench: Bench) -> None:
    await bench.turn("t0")
    running = await bench.begun("t1")
    begun = await bench.begun("t2", busy=BusyPolicy.INTERRUPT)
    assert begun.lease.token > running.lease.token
    with pytest.raises(TurnInterrupted):
        await bench.turns.renew(running.lease)
    with pytest.raises(TurnInterrupted):
        await bench.commit(running)
    await bench.turns.abort(running.lease)
    assert (await bench.commit(begun)).turn_number == 2


async def test_an_interrupted_first_turn_leaves_nothing_to_the_session(bench: Bench) -> None:
    first = await bench.begun("t1", metadata={"made": "by t1", "only": "t1"}, request=RequestMark("r1", b"digest"))
    await bench.pass_time(10_000)
    begun = await bench.begun("t2", metadata={"made": "by t2"}, busy=BusyPolicy.INTERRUPT)
    assert begun.created
    assert begun.session.metadata == {"made": "by t2"}
    assert begun.session.created_ms == begun.session.activity_ms
    assert begun.lease.token > first.lease.token
    with pytest.raises(TurnInterrupted):
        await bench.commit(first)
    await bench.commit(begun)
    stored = await bench.sessions.get(KEY)
    assert (stored.metadata, stored.created_ms) == ({"made": "by t2"}, begun.session.created_ms)
    assert stored.turn_count == 1


async def test_interrupt_goes_before_those_who_wait_and_they_keep_their_order(bench: Bench) -> None:
    running = await bench.begun("t1")
    await bench.begin("t2", wait_ms=60_000)
    await bench.begin("t3", wait_ms=60_000)
    await bench.commit(running)  # the lease is now reserved for t2
    begun = await bench.begun("t4", busy=BusyPolicy.INTERRUPT)
    assert isinstance(await bench.begin("t2", wait_ms=60_000), Waiting)
    await bench.commit(begun)
    assert isinstance(await bench.begin("t3", wait_ms=60_000), Waiting)
    await bench.begun("t2", wait_ms=60_000)


async def test_a_known_request_is_replayed(bench: Bench) -> None:
    request = RequestMark("r1", b"digest")
    await bench.commit(await bench.begun("t1", request=request), request=request)
    await bench.turn("t2")
    outcome = await bench.begin("t3", request=request)
    assert isinstance(outcome, Replayed)
    assert outcome.turn == b"t1" + number_field(1)
    await bench.begun("t4")  # the replay took no lease


async def test_a_request_id_with_another_digest_is_refused(bench: Bench) -> None:
    request, other = RequestMark("r1", b"digest"), RequestMark("r1", b"another")
    begun = await bench.begun("t1", request=request)
    for _ in range(2):
        with pytest.raises(IdempotencyKeyReused):
            await bench.begin("t2", request=other, wait_ms=60_000)
        await bench.commit(begun, request=request)


@pytest.mark.parametrize("busy", list(BusyPolicy))
async def test_a_request_that_is_still_running_is_waited_for_whatever_the_policy(
    bench: Bench, busy: BusyPolicy
) -> None:
    request = RequestMark("r1", b"digest")
    running = await bench.begun("t1", request=request)
    assert isinstance(await bench.begin("t2", request=request, busy=busy, wait_ms=60_000), Waiting)
    await bench.commit(running, request=request)
    outcome = await bench.begin("t2", request=request, busy=busy, wait_ms=60_000)
    assert isinstance(outcome, Replayed)
    await bench.begun("t3")


async def test_a_request_whose_turn_was_aborted_runs(bench: Bench) -> None:
    request = RequestMark("r1", b"digest")
    begun = await bench.begun("t1", request=request)
    await bench.turns.abort(begun.lease)
    await bench.begun("t2", request=request)


async def test_outcomes_of_requests_are_bounded_in_number_and_time(bench: Bench) -> None:
    marks = [RequestMark(f"r{n}", b"d") for n in range(bench.limits.replays_per_session + 1)]
    for n, mark in enumerate(marks):
        await bench.commit(
            await bench.begun(f"t{n}", request=mark, idle_ms=10**9, lifetime_ms=10**9), request=mark, idle_ms=10**9
        )
    assert isinstance(await bench.begin("x", request=marks[-1]), Replayed)
    assert isinstance(await bench.begin("x", request=marks[1]), Replayed)
    begun = await bench.begun("x", request=marks[0], idle_ms=10**9, lifetime_ms=10**9)
    await bench.turns.abort(begun.lease)
    await bench.pass_time(bench.limits.replay_ms)
    await bench.begun("y", request=marks[-1])


async def test_the_release_before_gave_the_first_32_bytes_of_a_digest(bench: Bench) -> None:
    old, new, other = (RequestMark("r1", b"d" * 32 + rest) for rest in (b"", b"new     ", b"other   "))
    begun = await bench.begun("t1", request=old)
    with pytest.raises(IdempotencyKeyReused):
        await bench.begin("t2", request=RequestMark("r1", b"e" * 40), wait_ms=60_000)
    assert isinstance(await bench.begin("t2", request=new, wait_ms=60_000), Waiting)
    await bench.commit(begun, request=old)
    assert isinstance(await bench.begin("t2", request=new), Replayed)
    await bench.commit(await bench.begun("t1", "s2", request=new), request=new)
    assert isinstance(await bench.begin("t2", "s2", request=old), Replayed)
    with pytest.raises(IdempotencyKeyReused):
        await bench.begin("t2", "s2", request=other)
