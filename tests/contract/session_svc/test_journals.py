"""The journal of a turn: what every store promises of it."""

import asyncio
from dataclasses import replace

import pytest

from contract.enums import BusyPolicy
from session_svc.model.errors import JournalFull, LeaseLost, TurnInterrupted, TurnNotFound
from session_svc.model.journal import JournalPage, NewEvents, TurnWatch, UnheardEnd
from session_svc.model.session import SessionKey
from session_svc.model.turn import Begun
from tests.contract.session_svc.bench import JOURNAL, Bench

KEY = SessionKey("default", "s1")


async def append(bench: Bench, begun: Begun, *events: bytes, first: int = 1) -> str:
    return await bench.journals.append(NewEvents(begun.lease, first, events))


async def read(
    bench: Bench, turn_id: str = "t1", *, user: str = "", after: str = "", waiter: str = "w.1"
) -> JournalPage:
    return await bench.journals.read(TurnWatch(KEY, user, turn_id, after), waiter)


def data(page: JournalPage) -> list[bytes]:
    return [event.data for event in page.events]


async def test_events_come_back_in_order_and_behind_an_event(bench: Bench) -> None:
    begun = await bench.begun("t1")
    await append(bench, begun, b"a", b"b")
    last = await append(bench, begun, b"c", first=3)
    page = await read(bench)
    assert (data(page), page.ended, page.held) == ([b"a", b"b", b"c"], False, True)
    assert page.events[-1].id == last
    assert data(await read(bench, after=page.events[0].id)) == [b"b", b"c"]
    assert data(await read(bench, after=last)) == []


async def test_a_repeat_adds_only_what_is_not_there(bench: Bench) -> None:
    begun = await bench.begun("t1")
    await append(bench, begun, b"a", b"b")
    await append(bench, begun, b"a", b"b")
    await append(bench, begun, b"b", b"c", first=2)
    assert data(await read(bench)) == [b"a", b"b", b"c"]


async def test_a_commit_ends_it_with_what_only_the_commit_knows(bench: Bench) -> None:
    begun = await bench.begun("t1")
    await append(bench, begun, b"a")
    committed = await bench.commit(begun, end_event=b"end")
    page = await read(bench)
    assert (data(page), page.ended, page.held) == ([b"a", b"end"], True, False)
    assert (page.events[-1].turn_number, page.events[-1].expire_ms) == (1, committed.expire_ms)
    assert await bench.commit(begun, end_event=b"end") == committed
    assert data(await read(bench)) == [b"a", b"end"]


async def test_the_last_events_come_with_the_commit_each_once(bench: Bench) -> None:
    begun = await bench.begun("t1")
    await append(bench, begun, b"a", b"b")
    committed = await bench.commit(begun, end_event=b"end", events=(b"b", b"c"), first_event=2)
    page = await read(bench)
    assert (data(page), page.ended) == ([b"a", b"b", b"c", b"end"], True)
    assert committed.event_id == page.events[2].id
    assert await bench.commit(begun, end_event=b"end", events=(b"b", b"c"), first_event=2) == committed
    assert data(await read(bench)) == [b"a", b"b", b"c", b"end"]


async def test_events_that_have_no_room_keep_their_turn_from_being_stored(bench: Bench) -> None:
    begun = await bench.begun("t1")
    await append(bench, begun, b"a")
    with pytest.raises(JournalFull):
        await bench.commit(begun, end_event=b"end", events=(b"x" * JOURNAL.max_bytes,), first_event=2)
    assert data(await read(bench)) == [b"a"]
    assert (await bench.commit(begun, end_event=b"end")).turn_number == 1


async def test_the_events_of_a_lease_that_is_lost_are_not_added(bench: Bench) -> None:
    begun = await bench.begun("t1")
    await append(bench, begun, b"a")
    await bench.begun("t2", busy=BusyPolicy.INTERRUPT)
    with pytest.raises(TurnInterrupted):
        await bench.commit(begun, end_event=b"end", events=(b"b",), first_event=2)
    assert b"b" not in data(await read(bench))


async def test_an_abort_ends_it_and_a_session_that_was_made_for_it_goes(bench: Bench) -> None:
    begun = await bench.begun("t1")
    await append(bench, begun, b"a")
    await bench.turns.abort(begun.lease, b"failed")
    await bench.turns.abort(begun.lease, b"failed")
    page = await read(bench)
    assert (data(page), page.ended) == ([b"a", b"failed"], True)
    assert (await bench.begun("t2")).created


async def test_a_turn_without_a_journal_gets_none_by_its_end(bench: Bench) -> None:
    await bench.commit(await bench.begun("t1"), end_event=b"end")
    with pytest.raises(TurnNotFound):
        await read(bench)


async def test_only_whoever_holds_the_lease_writes(bench: Bench) -> None:
    first = await bench.begun("t1")
    await append(bench, first, b"a")
    second = await bench.begun("t2", busy=BusyPolicy.INTERRUPT)
    with pytest.raises(TurnInterrupted):
        await append(bench, first, b"b", first=2)
    await bench.pass_time(bench.limits.lease_ms + 1)
    with pytest.raises(LeaseLost):
        await append(bench, second, b"x")


async def test_an_interrupted_turn_still_says_how_it_ended(bench: Bench) -> None:
    await bench.turn("t0")
    first = await bench.begun("t1")
    await append(bench, first, b"a")
    second = await bench.begun("t2", busy=BusyPolicy.INTERRUPT)
    await append(bench, second, b"x")
    await bench.turns.abort(first.lease, b"interrupted")
    page = await read(bench, "t1")
    assert (data(page), page.ended) == ([b"a", b""], True)
    assert page.events[-1].unheard is UnheardEnd.INTERRUPTED, "at once, whatever becomes of its gateway"
    assert data(await read(bench, "t2")) == [b"x"]


async def test_a_turn_that_another_gateway_goes_on_with_is_one_journal(bench: Bench) -> None:
    await bench.turn("t0")
    first = await bench.begun("t1")
    await append(bench, first, b"a", b"b")
    await bench.pass_time(bench.limits.lease_ms + 1)
    assert not (await read(bench)).held
    again = await bench.begun("t1")
    assert again.lease.token != first.lease.token
    await append(bench, again, b"c")
    await bench.turns.abort(first.lease, b"late")
    page = await read(bench)
    assert (data(page), page.ended, page.held) == ([b"a", b"b", b"c"], False, True)
    assert data(await read(bench, after=page.events[1].id)) == [b"c"]


async def test_journals_of_turns_of_one_session_do_not_mix(bench: Bench) -> None:
    for turn_id in ("t1", "t2", "t3"):
        begun = await bench.begun(turn_id)
        await append(bench, begun, turn_id.encode())
        await bench.commit(begun, end_event=b"end")
    for turn_id in ("t1", "t2", "t3"):
        assert data(await read(bench, turn_id)) == [turn_id.encode(), b"end"]


async def test_old_journals_go_when_their_time_is_up(bench: Bench) -> None:
    for turn_id in ("t1", "t2"):
        begun = await bench.begun(turn_id)
        await append(bench, begun, b"a")
        await bench.commit(begun, end_event=b"end", idle_ms=bench.limits.journal.keep_ms * 10)
        await bench.pass_time(JOURNAL.keep_ms + 1)
    with pytest.raises(TurnNotFound):
        await read(bench, "t1")


async def test_a_journal_is_bounded_and_older_ones_make_room(bench: Bench) -> None:
    first = await bench.begun("t1")
    await append(bench, first, b"a" * 6_000)
    await bench.commit(first, end_event=b"end")
    second = await bench.begun("t2")
    await append(bench, second, b"b" * 6_000)
    with pytest.raises(TurnNotFound):
        await read(bench, "t1")
    with pytest.raises(JournalFull):
        await append(bench, second, b"c" * 6_000, first=2)
    assert data(await read(bench, "t2")) == [b"b" * 6_000]
    await append(bench, second, b"d", first=2)


async def test_other_users_and_unknown_turns_are_not_found(bench: Bench) -> None:
    begun = await bench.begun("t1", user="ann")
    await append(bench, begun, b"a")
    assert data(await read(bench, user="ann")) == [b"a"]
    for turn_id, user in (("t1", ""), ("t1", "bob"), ("t9", "ann")):
        with pytest.raises(TurnNotFound):
            await read(bench, turn_id, user=user)


async def test_it_goes_with_its_session(bench: Bench) -> None:
    begun = await bench.begun("t1")
    await append(bench, begun, b"a")
    await bench.commit(begun, end_event=b"end")
    await bench.sessions.delete(KEY)
    with pytest.raises(TurnNotFound):
        await read(bench)


async def test_whoever_found_nothing_new_is_woken_by_what_comes(bench: Bench) -> None:
    begun = await bench.begun("t1")
    last = await append(bench, begun, b"a")
    for number, act in enumerate(("append", "commit")):
        waiter_id = bench.journals.new_waiter_id()
        page = await read(bench, after=last, waiter=waiter_id)
        assert not page.events
        woken = asyncio.create_task(bench.journals.wait_for_wakeup(waiter_id, 600))
        await asyncio.sleep(0.05)
        assert not woken.done()
        if act == "append":
            last = await append(bench, begun, b"b", first=2 + number)
        else:
            await bench.commit(begun, end_event=b"end")
        await asyncio.wait_for(woken, 60)


async def test_a_session_is_kept_for_as_long_as_it_is_without_a_journal(bench: Bench) -> None:
    begun = await bench.begun("t1", idle_ms=60_000)
    await append(bench, begun, b"a")
    await bench.commit(begun, end_event=b"end")
    await bench.pass_time(59_000)
    assert not (await bench.begun("t2")).created


async def test_a_turn_id_of_another_project_is_not_found(bench: Bench) -> None:
    begun = await bench.begun("t1")
    await append(bench, begun, b"a")
    other = TurnWatch(replace(KEY, project="other"), "", "t1")
    with pytest.raises(TurnNotFound):
        await bench.journals.read(other, "w.1")


async def test_calls_that_a_deleted_turn_made_are_begun_ones_of_the_turn_before(bench: Bench) -> None:
    await bench.turn("t1")
    turn = await bench.begun("t2")
    await bench.journals.append(NewEvents(turn.lease, 1, (b"x",), b"", ("a",)))
    await bench.commit(turn, turn=b"made:a b;", end_event=b"end")
    await bench.sessions.delete_turn(KEY, "t2")
    again = await bench.begun("t3")
    assert sorted(again.session.begun_calls) == ["a", "b"]
    await bench.turns.abort(again.lease)
    await bench.sessions.delete_turn(KEY, "t1")
    assert (await bench.begun("t4")).session.begun_calls == ()


async def test_calls_of_the_turn_before_are_known_as_begun_until_a_turn_is_stored(bench: Bench) -> None:
    await bench.turn("t0")
    turn = await bench.begun("t1")
    assert turn.session.begun_calls == ()
    for number, (began, denied) in enumerate([(("a", "b"), ()), (("a",), ()), ((), ("b",)), (("c",), ())], 1):
        await bench.journals.append(NewEvents(turn.lease, number, (b"x",), b"", began, denied))
    await bench.turns.abort(turn.lease, b"failed")
    again = await bench.begun("t2")
    assert sorted(again.session.begun_calls) == ["a", "c"]
    await bench.journals.append(NewEvents(again.lease, 1, (b"x",), b"", (), ("a", "c")))
    await bench.turns.abort(again.lease, b"failed")
    turn = await bench.begun("t3")
    assert turn.session.begun_calls == ()
    await bench.journals.append(NewEvents(turn.lease, 1, (b"x",), b"", ("d",)))
    await bench.commit(turn, end_event=b"end")
    assert (await bench.begun("t4")).session.begun_calls == ()
