"""The promises of `TurnStore`, on both adapters; those of busy sessions are in test_busy_sessions.py."""

import pytest

from contract.enums import BusyPolicy
from contract.errors import SessionAgentMismatch
from session_svc.model.errors import AgentDeleted, LeaseLost, SessionBusy, SessionNotFound, ToolChainTooLarge
from session_svc.model.session import AgentIncarnation, SessionKey, Usage
from session_svc.model.turn import CommitTurn, Lease, Replayed, RequestMark, TurnQuery
from session_svc.model.window import fit_window
from tests.contract.session_svc.bench import UID, Bench, number_field
from tests.doubles.session_svc.memory_state import HeadedTurn

KEY = SessionKey("default", "s1")
OTHER_UID = "5f0c7f0e-0000-4000-8000-000000000002"


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


@pytest.mark.parametrize("steps", [5, 40])
async def test_of_a_chain_that_is_longer_than_the_window_task_and_newest_turns_are_there_for_who_wants_them(
    bench: Bench, steps: int
) -> None:
    def named(*names: tuple[str, int]) -> list[bytes]:
        return [name.encode() + number_field(number) for name, number in names]

    await bench.turn("before")
    await bench.turn("task")
    for n in range(steps):
        await bench.commit(await bench.begun(f"step{n}"), continues=True)
    assert (await bench.begun("t1", window=4)).window == []
    await bench.turns.abort((await bench.begun("t1", window=4)).lease)
    begun = await bench.begun("t2", window=4, within_chain=True)
    last = (f"step{steps - 1}", steps + 2)
    assert begun.window == named(("task", 2), (f"step{steps - 2}", steps + 1), last)
    await bench.commit(begun)
    after = await bench.begun("t3", window=4, within_chain=True)
    assert after.window == named(("task", 2), last, ("t2", steps + 3))
    await bench.turns.abort(after.lease)
    assert len((await bench.begun("t4", window=1000, within_chain=True)).window) == steps + 3


@pytest.mark.parametrize("window", [0, 4, 1000])
async def test_window_of_a_turn_that_continues_holds_its_whole_chain(bench: Bench, window: int) -> None:
    await bench.turn("before")
    await bench.turn("task")
    for n in range(40):
        await bench.commit(await bench.begun(f"step{n}"), continues=True)
    begun = await bench.begun("next", window=window, continues=True)
    first = 1 if window == 1000 else 2
    assert len(begun.window) == 42 - first + 1
    assert begun.window[0] == (b"before" if first == 1 else b"task") + number_field(first)


async def test_a_session_has_the_digest_of_its_newest_turn(bench: Bench) -> None:
    begun = await bench.begun("t1")
    assert begun.session.history_digest == b""
    await bench.commit(begun, history_digest=b":\x00d")
    begun = await bench.begun("t2")
    assert begun.session.history_digest == b":\x00d"
    await bench.commit(begun)
    assert (await bench.begun("t3")).session.history_digest == b""


async def test_a_commit_cuts_turns_and_what_is_remembered_of_their_requests(bench: Bench) -> None:
    for n in range(1, 5):
        request = RequestMark(f"r{n}", b"d")
        await bench.commit(await bench.begun(f"t{n}", request=request), request=request)
    committed = await bench.commit(await bench.begun("new"), messages=3, cut_after=2)
    assert committed.turn_number == 3
    session = await bench.sessions.get(KEY)
    assert (session.last_turn, session.turn_count, session.message_count) == (3, 3, 7)
    assert isinstance(await bench.begin("again", request=RequestMark("r2", b"d")), Replayed)
    begun = await bench.begun("other", request=RequestMark("r3", b"d"))
    assert begun.window == [turn + number_field(n) for n, turn in enumerate((b"t1", b"t2", b"new"), 1)]
    assert (await bench.commit(begun, cut_after=0)).turn_number == 1
    assert (await bench.sessions.get(KEY)).message_count == 2


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
        await bench.pass_time(bench.limits.lease_ms - 10_000)
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
    await bench.agents.fence(AgentIncarnation("default", "hello", UID))
    for session in ("s1", "s2"):
        with pytest.raises(AgentDeleted):
            await bench.begin("t2", session)
        with pytest.raises(SessionNotFound):
            await bench.sessions.get(SessionKey("default", session))
    await bench.agents.unfence(AgentIncarnation("default", "hello", UID))
    await bench.begun("t3")


async def test_the_next_life_of_an_agent_never_sees_the_sessions_of_the_last(bench: Bench) -> None:
    await bench.turn("t1")
    await bench.agents.fence(AgentIncarnation("default", "hello", UID))
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
    await bench.pass_time(10_500)
    await bench.turns.renew(begun.lease)
    await bench.pass_time(10_500)
    assert (await bench.sessions.get(KEY)).turn_count == 1
    assert (await bench.commit(begun)).turn_number == 2
    with pytest.raises(SessionNotFound):
        await bench.sessions.get(KEY)


async def test_usage_and_revision_are_kept(bench: Bench) -> None:
    for n in (1, 2):
        begun = await bench.begun(f"t{n}")
        await bench.turns.commit(CommitTurn(begun.lease, b"x", 2, usage=Usage(3, 2, 1, 4, 5), agent_revision=n))
    stored = await bench.sessions.get(KEY)
    assert stored.usage == Usage(6, 4, 2, 8, 10)
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


def test_a_chain_that_goes_on_and_that_no_window_holds_is_refused_and_one_that_is_done_is_cut() -> None:
    chain = [HeadedTurn(2, n > 1, n, b"x" * 10) for n in (3, 2, 1)]
    with pytest.raises(ToolChainTooLarge) as refused:
        fit_window(chain, 2, 25, continues=True)
    assert refused.value.metadata["code"] == "context_length_exceeded"
    assert [turn.number for turn in fit_window(chain, 2, 30, continues=True)] == [1, 2, 3]
    assert [turn.number for turn in fit_window(chain, 2, 25, within_chain=True)] == [1, 3]
    assert [turn.number for turn in fit_window(chain, 2, 15, within_chain=True)] == [3]
