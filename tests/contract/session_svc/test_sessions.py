"""The promises of `SessionStore` and `AgentStore`, on both adapters."""

import time
from types import SimpleNamespace

import pytest

from session_svc.model.errors import (
    AgentDeleted,
    LeaseLost,
    SessionAlreadyExists,
    SessionBusy,
    SessionNotFound,
    StoredTurnNotFound,
    TurnNotLast,
)
from session_svc.model.session import (
    AgentIncarnation,
    Fork,
    NewSession,
    Purge,
    Session,
    SessionChange,
    SessionKey,
    SessionQuery,
)
from session_svc.model.turn import RequestMark, TurnQuery
from tests.contract.session_svc.bench import UID, Bench, ids

KEY = SessionKey("default", "s1")
PROJECT = SessionQuery("default")
HOUR_MS = 3_600_000


def new(session_id: str = "s1", **more: object) -> NewSession:
    values = {"agent_id": "hello", "agent_uid": UID} | more
    return NewSession(SessionKey("default", session_id), **values)  # type: ignore[arg-type]


async def test_what_is_created_is_read(bench: Bench) -> None:
    wanted = new(
        user_id="ann", idle_ms=50_000, lifetime_ms=90_000, pinned_revision=3, metadata={"city": "Köln", "a": "b"}
    )
    created = await bench.sessions.create(wanted)
    assert created == await bench.sessions.get(KEY)
    assert created == Session(
        key=KEY,
        agent_id="hello",
        agent_uid=UID,
        user_id="ann",
        created_ms=created.created_ms,
        activity_ms=created.created_ms,
        idle_ms=50_000,
        lifetime_ms=90_000,
        expire_ms=created.created_ms + 50_000,
        pinned_revision=3,
        metadata={"city": "Köln", "a": "b"},
    )


async def test_an_id_is_taken_until_its_session_ends(bench: Bench) -> None:
    await bench.sessions.create(new(idle_ms=50_000))
    with pytest.raises(SessionAlreadyExists):
        await bench.sessions.create(new(user_id="bob"))
    await bench.pass_time(50_000)
    await bench.sessions.create(new(user_id="bob"))


async def test_no_session_is_created_for_a_fenced_agent(bench: Bench) -> None:
    await bench.agents.fence(AgentIncarnation("default", "hello", UID))
    with pytest.raises(AgentDeleted):
        await bench.sessions.create(new())
    with pytest.raises(SessionNotFound):
        await bench.sessions.get(KEY)


async def test_a_user_reads_changes_and_deletes_only_what_is_theirs(bench: Bench) -> None:
    await bench.sessions.create(new(user_id="ann"))
    for stranger in ("bob", "an", "ann2"):
        with pytest.raises(SessionNotFound):
            await bench.sessions.get(KEY, stranger)
        with pytest.raises(SessionNotFound):
            await bench.sessions.update(SessionChange(KEY, stranger, metadata={"x": "y"}))
        with pytest.raises(SessionNotFound):
            await bench.sessions.turns(TurnQuery(KEY, stranger))
        with pytest.raises(SessionNotFound):
            await bench.sessions.delete(KEY, stranger)
        with pytest.raises(SessionNotFound):
            await bench.sessions.fork(Fork(KEY, "s2", user_id=stranger))
    assert (await bench.sessions.get(KEY, "ann")).metadata == {}
    await bench.sessions.delete(KEY, "ann")


async def test_update_changes_what_it_names(bench: Bench) -> None:
    await bench.sessions.create(new(metadata={"a": "1"}, pinned_revision=4))
    before = await bench.sessions.get(KEY)
    changed = await bench.sessions.update(SessionChange(KEY, idle_ms=50_000))
    assert changed.expire_ms == before.activity_ms + 50_000
    assert (changed.metadata, changed.pinned_revision) == ({"a": "1"}, 4)
    changed = await bench.sessions.update(SessionChange(KEY, metadata={}, pinned_revision=0))
    assert (changed.metadata, changed.pinned_revision, changed.idle_ms) == ({}, 0, 50_000)
    assert changed == await bench.sessions.get(KEY)
    await bench.pass_time(50_000)
    with pytest.raises(SessionNotFound):
        await bench.sessions.update(SessionChange(KEY, idle_ms=50_000))


async def test_a_shorter_idle_ttl_may_end_a_session_at_once(bench: Bench) -> None:
    await bench.turn("t1")
    await bench.pass_time(10_000)
    with pytest.raises(SessionNotFound):
        await bench.sessions.update(SessionChange(KEY, idle_ms=5000))
    with pytest.raises(SessionNotFound):
        await bench.sessions.get(KEY)


async def test_delete_takes_the_history_along(bench: Bench) -> None:
    await bench.turn("t1")
    await bench.turn("t2")
    assert (await bench.sessions.delete(KEY)).turns == 2
    with pytest.raises(SessionNotFound):
        await bench.sessions.delete(KEY)
    with pytest.raises(SessionNotFound):
        await bench.sessions.turns(TurnQuery(KEY))
    assert (await bench.begun("t3")).window == []


async def test_lists_by_agent_and_user_newest_first(bench: Bench) -> None:
    for n, (agent, user) in enumerate([("hello", "ann"), ("hello", "bob"), ("other", "ann"), ("hello", "ann")]):
        uid = UID if agent == "hello" else "uid-2"
        await bench.turn("t", f"s{n}", agent=agent, uid=uid, user=user)
        await bench.pass_time(10)
    await bench.turn("t2", "s0", user="ann")
    assert await ids(bench, PROJECT) == ["s0", "s3", "s2", "s1"]
    assert await ids(bench, SessionQuery("default", agent_id="hello")) == ["s0", "s3", "s1"]
    assert await ids(bench, SessionQuery("default", user_id="ann")) == ["s0", "s3", "s2"]
    assert await ids(bench, SessionQuery("default", agent_id="hello", user_id="ann")) == ["s0", "s3"]
    assert await ids(bench, SessionQuery("default", agent_id="nobody")) == []
    assert await ids(bench, SessionQuery("elsewhere")) == []


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_pages_hold_every_session_once(bench: Bench, size: int) -> None:
    for n in range(7):  # many of them within one millisecond
        await bench.sessions.create(new(f"s{n}"))
    assert sorted(await ids(bench, PROJECT, size)) == [f"s{n}" for n in range(7)]


async def test_lists_never_show_the_dead(bench: Bench) -> None:
    await bench.sessions.create(new("short", idle_ms=5000))
    await bench.sessions.create(new("long", idle_ms=HOUR_MS))
    await bench.turn("t", "deleted")
    await bench.sessions.delete(SessionKey("default", "deleted"))
    begun = await bench.begun("t", "aborted")
    await bench.turns.abort(begun.lease)
    await bench.begun("t", "lost")
    await bench.pass_time(bench.limits.lease_ms)
    for _ in range(2):
        assert await ids(bench, PROJECT) == ["long"]
        assert await ids(bench, SessionQuery("default", agent_id="hello")) == ["long"]


async def test_a_session_made_again_is_listed_again(bench: Bench) -> None:
    await bench.sessions.create(new(idle_ms=50_000))
    await bench.pass_time(HOUR_MS)
    assert await ids(bench, PROJECT) == []
    await bench.sessions.create(new())
    assert await ids(bench, PROJECT) == ["s1"]


@pytest.mark.parametrize("newest_first", [False, True])
async def test_turn_pages_do_not_move_under_appends(bench: Bench, newest_first: bool) -> None:
    for n in range(1, 6):
        await bench.turn(f"t{n}")
    numbers, start = [], None
    for page_number in range(10):
        page = await bench.sessions.turns(TurnQuery(KEY, "", start, 2, newest_first))
        numbers += [turn[-1] for turn in page.turns]
        await bench.turn(f"later{page_number}")
        start = page.next
        if start is None or len(numbers) > 8:
            break
    assert numbers[:5] == ([5, 4, 3, 2, 1] if newest_first else [1, 2, 3, 4, 5])
    assert len(numbers) == len(set(numbers))


async def test_turns_of_an_empty_session(bench: Bench) -> None:
    await bench.sessions.create(new())
    page = await bench.sessions.turns(TurnQuery(KEY))
    assert (list(page.turns), page.next) == ([], None)


@pytest.mark.parametrize(
    ("purge", "left"),
    [
        (Purge("default", agent_id="hello"), ["other"]),
        (Purge("default", agent_id="hello", agent_uid=UID), ["other", "second"]),
        (Purge("default", user_id="ann"), ["idle", "second"]),
        (Purge("default", agent_id="other", user_id="ann"), ["ann", "idle", "second"]),
        (Purge("default", idle_longer_than_ms=HOUR_MS), ["ann", "other", "second"]),
        (Purge("default", agent_id="hello", idle_longer_than_ms=HOUR_MS), ["ann", "other", "second"]),
        (Purge("elsewhere", agent_id="hello"), ["ann", "idle", "other", "second"]),
    ],
)
async def test_purge_removes_exactly_what_fits(bench: Bench, purge: Purge, left: list[str]) -> None:
    await bench.turn("t", "idle", idle_ms=10 * HOUR_MS, lifetime_ms=20 * HOUR_MS)
    await bench.commit(
        await bench.begun("u", "idle", idle_ms=10 * HOUR_MS, lifetime_ms=20 * HOUR_MS), idle_ms=10 * HOUR_MS
    )
    await bench.pass_time(HOUR_MS)
    await bench.turn("t", "ann", user="ann")
    await bench.turn("t", "other", user="ann", agent="other", uid="uid-2")
    await bench.turn("t", "second", user="bob", uid="uid-3")
    removed = await bench.sessions.purge(purge)
    assert removed.sessions == 4 - len(left)
    assert sorted(await ids(bench, PROJECT)) == left
    assert (await bench.sessions.purge(purge)).sessions == 0


async def test_purge_of_many(bench: Bench) -> None:
    for n in range(250):
        await bench.sessions.create(new(f"s{n}"))
    await bench.sessions.create(new("other", agent_uid="uid-2"))
    assert (await bench.sessions.purge(Purge("default", agent_id="hello", agent_uid=UID))).sessions == 250
    assert await ids(bench, PROJECT) == ["other"]


async def test_purge_removes_what_a_replica_wrote_whose_clock_is_hours_ahead(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        clock = SimpleNamespace(time=lambda: time.time() + 3 * 3600, monotonic=time.monotonic)
        patched.setattr("session_svc.redis_store.indexes.time", clock)
        await bench.commit(await bench.begun("t1"))
    assert (await bench.sessions.purge(Purge("default", agent_id="hello"))).sessions == 1


async def test_idle_purge_spares_a_running_turn(bench: Bench) -> None:
    await bench.turn("t1")
    begun = await bench.begun("t2")
    await bench.pass_time(10_000)
    assert (await bench.sessions.purge(Purge("default", idle_longer_than_ms=5000))).sessions == 0
    await bench.commit(begun)


async def test_purge_stops_a_running_turn(bench: Bench) -> None:
    begun = await bench.begun("t1")
    assert (await bench.sessions.purge(Purge("default", agent_id="hello"))).sessions == 1
    with pytest.raises(LeaseLost):
        await bench.commit(begun)


async def test_agents_that_may_have_sessions(bench: Bench) -> None:
    assert await bench.agents.agents() == []
    await bench.turn("t1")
    await bench.turn("t2")
    await bench.sessions.create(new("s2", agent_id="other", agent_uid="uid-2"))
    lives = [AgentIncarnation("default", "hello", UID), AgentIncarnation("default", "other", "uid-2")]
    assert sorted(await bench.agents.agents(), key=lambda life: life.agent_id) == lives


async def test_the_cursor_is_kept(bench: Bench) -> None:
    assert await bench.agents.cursor() == ""
    await bench.agents.keep_cursor("c1")
    await bench.agents.keep_cursor("c2")
    assert await bench.agents.cursor() == "c2"


async def test_a_turn_is_found_by_its_id(bench: Bench) -> None:
    for n in range(20):
        await bench.turn(f"t{n}", user="ann")
    for n in (0, 7, 19):
        turn, session = await bench.sessions.turn(KEY, f"t{n}", "ann")
        assert turn.startswith(f"t{n}".encode())
        assert session.last_turn == 20
    with pytest.raises(StoredTurnNotFound):
        await bench.sessions.turn(KEY, "t20")
    for key, user in ((KEY, "bob"), (SessionKey("other", "s1"), ""), (SessionKey("default", "s2"), "")):
        with pytest.raises(SessionNotFound):
            await bench.sessions.turn(key, "t1", user)
    await bench.sessions.fork(Fork(KEY, "s3", up_to=8))
    assert (await bench.sessions.turn(SessionKey("default", "s3"), "t7"))[0].startswith(b"t7")


async def test_the_last_turn_can_be_deleted_with_what_is_remembered_of_its_request(bench: Bench) -> None:
    mark = RequestMark("r", b"digest")
    await bench.turn("t1")
    await bench.commit(await bench.begun("t2", request=mark), request=mark, history_digest=b"d", messages=3)
    with pytest.raises(TurnNotLast):
        await bench.sessions.delete_turn(KEY, "t1")
    with pytest.raises(StoredTurnNotFound):
        await bench.sessions.delete_turn(KEY, "t3")
    for key, user in ((KEY, "bob"), (SessionKey("other", "s1"), "")):
        with pytest.raises(SessionNotFound):
            await bench.sessions.delete_turn(key, "t2", user)
    left = await bench.sessions.delete_turn(KEY, "t2")
    assert (left.last_turn, left.message_count, left.history_digest) == (1, 2, b"")
    assert left == await bench.sessions.get(KEY)
    with pytest.raises(StoredTurnNotFound):
        await bench.sessions.turn(KEY, "t2")
    again = await bench.begun("t2", request=mark)  # neither the request nor the turn is replayed
    assert [turn[:2] for turn in again.window] == [b"t1"]
    assert (await bench.commit(again, request=mark)).turn_number == 2
    assert (await bench.sessions.delete_turn(KEY, "t2")).last_turn == 1
    assert (await bench.sessions.delete_turn(KEY, "t1")).turn_count == 0
    assert (await bench.turn("t4")).turn_number == 1


async def test_no_turn_is_deleted_while_another_is_under_way(bench: Bench) -> None:
    await bench.turn("t1")
    begun = await bench.begun("t2")
    with pytest.raises(SessionBusy):
        await bench.sessions.delete_turn(KEY, "t1")
    await bench.turns.abort(begun.lease)
    assert (await bench.sessions.delete_turn(KEY, "t1")).turn_count == 0
