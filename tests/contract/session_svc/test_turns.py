"""The promises of `TurnStore`, on both adapters."""

import asyncio

import pytest

from session_svc.errors import (
    AgentDeleted,
    IdempotencyKeyReused,
    LeaseLost,
    SessionAgentMismatch,
    SessionBusy,
    SessionNotFound,
    TurnInterrupted,
    TurnQueueFull,
)
from session_svc.model import (
    AgentLife,
    BeginTurn,
    BusyPolicy,
    CommitTurn,
    Lease,
    Replayed,
    RequestMark,
    SessionKey,
    TurnQuery,
    Usage,
    Waiting,
)
from tests.contract.session_svc.bench import UID, Bench

KEY = SessionKey("default", "s1")
OTHER_UID = "5f0c7f0e-0000-4000-8000-000000000002"


def number_field(number: int) -> bytes:
    assert number < 128
    return b"\x10" + bytes([number])


async def test_first_turn_makes_the_session(bench: Bench) -> None:
    begun = await bench.begun("t1", user="ann")
    assert begun.created
    assert begun.window == []
    assert begun.session.key == KEY
    assert (begun.session.agent_id, begun.session.agent_uid, begun.session.user_id) == ("hello", UID, "ann")
    committed = await bench.commit(begun)
    assert committed.turn_number == 1
    stored = await bench.sessions.get(KEY)
    assert (stored.turn_count, stored.message_count) == (1, 2)


async def test_window_is_what_was_committed_oldest_first(bench: Bench) -> None:
    for n in range(1, 4):
        assert (await bench.turn(f"t{n}")).turn_number == n
    begun = await bench.begun("t4")
    assert not begun.created
    assert begun.window == [f"t{n}".encode() + number_field(n) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("messages", "window", "expected"),
    [
        ([2, 2, 2], 6, [1, 2, 3]),
        ([2, 2, 2], 5, [2, 3]),
        ([2, 2, 2], 1, []),
        ([2, 2, 2], 0, []),
        ([1, 1, 1, 1], 3, [2, 3, 4]),
        ([1] * 45, 44, list(range(2, 46))),
        ([2, 9, 2], 10, [3]),
    ],
)
async def test_window_holds_whole_turns_up_to_so_many_messages(
    bench: Bench, messages: list[int], window: int, expected: list[int]
) -> None:
    for n, count in enumerate(messages, 1):
        await bench.commit(await bench.begun(f"t{n}"), messages=count)
    begun = await bench.begun("last", window=window)
    assert begun.window == [f"t{n}".encode() + number_field(n) for n in expected]


async def test_window_never_starts_with_a_result_whose_call_is_cut_off(bench: Bench) -> None:
    await bench.commit(await bench.begun("t1"))
    await bench.commit(await bench.begun("t2"), continues=True)
    await bench.commit(await bench.begun("t3"))
    assert len((await bench.begun("t4", window=4)).window) == 1
    assert len((await bench.begun("t4", window=6)).window) == 3


async def test_begin_again_with_the_same_turn_id_gets_the_same_lease(bench: Bench) -> None:
    first = await bench.begun("t1")
    again = await bench.begun("t1")
    assert again.lease == first.lease
    assert again.created


async def test_begin_after_its_own_commit_replays(bench: Bench) -> None:
    await bench.turn("t1")
    outcome = await bench.begin("t1")
    assert isinstance(outcome, Replayed)
    assert outcome.turn == b"t1" + number_field(1)


async def test_tokens_grow(bench: Bench) -> None:
    first = await bench.begun("t1")
    await bench.commit(first)
    second = await bench.begun("t2")
    await bench.turns.abort(second.lease)
    third = await bench.begun("t3")
    assert first.lease.token < second.lease.token < third.lease.token


async def test_a_busy_session_refuses(bench: Bench) -> None:
    await bench.begun("t1")
    with pytest.raises(SessionBusy) as refused:
        await bench.begin("t2", busy=BusyPolicy.REJECT)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 2
    with pytest.raises(SessionBusy):
        await bench.begin("t2", busy=BusyPolicy.WAIT, wait_ms=0)


async def test_commit_is_idempotent_even_after_later_turns(bench: Bench) -> None:
    first = await bench.begun("t1")
    committed = await bench.commit(first)
    assert (await bench.commit(first)).turn_number == committed.turn_number
    await bench.turn("t2")
    await bench.turn("t3")
    assert (await bench.commit(first)).turn_number == 1
    assert (await bench.sessions.get(KEY)).turn_count == 3


async def test_a_lease_that_ran_out_can_not_commit_or_renew(bench: Bench) -> None:
    await bench.turn("t0")
    begun = await bench.begun("t1")
    await bench.pass_time(bench.limits.lease_ms)
    with pytest.raises(LeaseLost):
        await bench.commit(begun)
    with pytest.raises(LeaseLost):
        await bench.turns.renew(begun.lease)
    assert (await bench.sessions.get(KEY)).turn_count == 1


async def test_a_holder_that_was_paused_is_fenced_off_by_the_next(bench: Bench) -> None:
    paused = await bench.begun("t1")
    await bench.pass_time(bench.limits.lease_ms)
    following = await bench.begun("t2")
    with pytest.raises(LeaseLost):
        await bench.commit(paused)
    await bench.turns.abort(paused.lease)  # changes nothing
    assert (await bench.commit(following)).turn_number == 1


async def test_a_forged_token_or_turn_id_can_not_commit(bench: Bench) -> None:
    lease = (await bench.begun("t1")).lease
    for forged in (Lease(lease.key, "t1", lease.token + 1), Lease(lease.key, "other", lease.token)):
        with pytest.raises(LeaseLost):
            await bench.turns.commit(CommitTurn(forged, b"x", 2))


async def test_renewal_extends(bench: Bench) -> None:
    begun = await bench.begun("t1")
    for _ in range(4):
        await bench.pass_time(bench.limits.lease_ms - 1000)
        renewed = await bench.turns.renew(begun.lease)
        assert renewed.expire_ms > begun.lease.expire_ms
    await bench.commit(begun)


async def test_abort_leaves_no_trace(bench: Bench) -> None:
    begun = await bench.begun("t1")
    await bench.turns.abort(begun.lease)
    await bench.turns.abort(begun.lease)
    with pytest.raises(SessionNotFound):
        await bench.sessions.get(KEY)


async def test_abort_keeps_a_session_that_had_turns(bench: Bench) -> None:
    await bench.turn("t1")
    begun = await bench.begun("t2")
    await bench.turns.abort(begun.lease)
    assert (await bench.sessions.get(KEY)).turn_count == 1
    with pytest.raises(LeaseLost):
        await bench.commit(begun)


async def test_a_session_whose_first_turn_never_ended_is_gone_with_its_lease(bench: Bench) -> None:
    await bench.begun("t1")
    await bench.pass_time(bench.limits.lease_ms)
    with pytest.raises(SessionNotFound):
        await bench.sessions.get(KEY)
    assert (await bench.begun("t2")).created


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
    call = bench.turns.new_call()
    turn = BeginTurn(KEY, "hello", UID, "t2")
    assert isinstance(await bench.turns.begin(turn, call, 60_000), Waiting)
    waiting = asyncio.create_task(bench.turns.woken(call, 10))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await bench.commit(running)
    async with asyncio.timeout(1):
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
    call = bench.turns.new_call()
    await bench.turns.begin(BeginTurn(KEY, "hello", UID, "t2"), call, 60_000)
    await bench.begin("t3", wait_ms=60_000)
    await bench.commit(running)
    await bench.turns.leave(KEY, call)
    await bench.begun("t3", wait_ms=60_000)


async def test_leaving_gives_back_a_lease_only_to_the_call_that_has_it(bench: Bench) -> None:
    first, second = bench.turns.new_call(), bench.turns.new_call()
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


async def test_another_users_session_is_not_there(bench: Bench) -> None:
    await bench.turn("t1", user="ann")
    for user in ("bob", ""):
        with pytest.raises(SessionNotFound):
            await bench.begin("t2", user=user)
    await bench.turn("t1", "s2")
    with pytest.raises(SessionNotFound):
        await bench.begin("t2", "s2", user="ann")


async def test_another_users_session_is_not_there_even_for_another_agent(bench: Bench) -> None:
    await bench.turn("t1", user="ann")
    with pytest.raises(SessionNotFound):
        await bench.begin("t2", user="bob", uid=OTHER_UID, agent="other")


async def test_another_agents_session_is_refused(bench: Bench) -> None:
    await bench.turn("t1")
    with pytest.raises(SessionAgentMismatch):
        await bench.begin("t2", uid=OTHER_UID)


async def test_projects_do_not_see_each_other(bench: Bench) -> None:
    await bench.turn("t1")
    assert (await bench.begun("t2", project="other", uid=OTHER_UID)).created


async def test_must_exist(bench: Bench) -> None:
    with pytest.raises(SessionNotFound):
        await bench.begin("t1", must_exist=True)
    await bench.turn("t1")
    assert not (await bench.begun("t2", must_exist=True)).created


async def test_no_turn_starts_on_a_fenced_agent_and_nothing_is_left_of_it(bench: Bench) -> None:
    await bench.turn("t1")
    await bench.agents.fence(AgentLife("default", "hello", UID))
    for session in ("s1", "s2"):
        with pytest.raises(AgentDeleted):
            await bench.begin("t2", session)
        with pytest.raises(SessionNotFound):
            await bench.sessions.get(SessionKey("default", session))
    await bench.agents.unfence(AgentLife("default", "hello", UID))
    await bench.begun("t3")


async def test_the_next_life_of_an_agent_never_sees_the_sessions_of_the_last(bench: Bench) -> None:
    await bench.turn("t1")
    await bench.agents.fence(AgentLife("default", "hello", UID))
    begun = await bench.begun("t2", uid=OTHER_UID)
    assert begun.created
    assert begun.window == []


async def test_a_turn_that_runs_on_a_deleted_session_can_not_be_committed(bench: Bench) -> None:
    await bench.turn("t1")
    begun = await bench.begun("t2")
    await bench.sessions.delete(KEY)
    with pytest.raises(LeaseLost):
        await bench.commit(begun)
    again = await bench.begun("t3")
    assert again.created
    with pytest.raises(LeaseLost):
        await bench.commit(begun)


async def test_a_session_slides(bench: Bench) -> None:
    committed = await bench.turn("t1", idle_ms=60_000)
    await bench.pass_time(50_000)
    assert (await bench.turn("t2", idle_ms=60_000)).expire_ms >= committed.expire_ms
    await bench.pass_time(50_000)
    assert (await bench.sessions.get(KEY)).turn_count == 2
    await bench.pass_time(10_000)
    with pytest.raises(SessionNotFound):
        await bench.sessions.get(KEY)
    begun = await bench.begun("t3")
    assert begun.created
    assert begun.window == []


async def test_a_session_ends_at_its_cap_however_busy(bench: Bench) -> None:
    for n in range(4):
        await bench.turn(f"t{n}", idle_ms=60_000, lifetime_ms=120_000)
        await bench.pass_time(30_000)
    with pytest.raises(SessionNotFound):
        await bench.sessions.get(KEY)


async def test_a_session_never_ends_in_the_middle_of_a_turn(bench: Bench) -> None:
    await bench.turn("t1", lifetime_ms=20_000)
    begun = await bench.begun("t2", lifetime_ms=20_000)
    await bench.pass_time(14_000)
    await bench.turns.renew(begun.lease)
    await bench.pass_time(14_000)
    assert (await bench.sessions.get(KEY)).turn_count == 1
    assert (await bench.commit(begun)).turn_number == 2
    with pytest.raises(SessionNotFound):
        await bench.sessions.get(KEY)


async def test_usage_and_revision_are_kept(bench: Bench) -> None:
    for n in (1, 2):
        begun = await bench.begun(f"t{n}")
        await bench.turns.commit(CommitTurn(begun.lease, b"x", 2, usage=Usage(3, 2, 1), agent_revision=n))
    stored = await bench.sessions.get(KEY)
    assert stored.usage == Usage(6, 4, 2)
    assert stored.agent_revision == 2


async def test_the_oldest_turns_go_beyond_the_cap(bench: Bench) -> None:
    most = bench.limits.turns_per_session
    for n in range(most + 3):
        await bench.turn(f"t{n}")
    stored = await bench.sessions.get(KEY)
    assert (stored.first_turn, stored.last_turn, stored.turn_count) == (4, most + 3, most)
    assert stored.message_count == 2 * most
    page = await bench.sessions.turns(TurnQuery(KEY, size=2))
    assert page.turns == [b"t3" + number_field(4), b"t4" + number_field(5)]
