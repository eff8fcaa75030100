"""Forks, and sessions that hang on others."""

import pytest

from servicekit.errors import InvalidArgument
from session_svc.model.errors import (
    SessionAlreadyExists,
    SessionBusy,
    SessionNotFound,
)
from session_svc.model.session import (
    Fork,
    NewSession,
    Purge,
    SessionChange,
    SessionKey,
    SessionQuery,
    Usage,
)
from session_svc.model.turn import TurnQuery
from tests.contract.session_svc.bench import UID, Bench, ids

KEY = SessionKey("default", "s1")
PROJECT = SessionQuery("default")


async def family(bench: Bench) -> None:
    """A session whose agent has called another one, which has called a third."""
    await bench.turn("t1", "p", user="ann")
    await bench.turn("t2", "p:a", user="ann", agent="other", uid="uid-2", parent="p")
    await bench.turn("t3", "p:a:b", user="ann", agent="third", uid="uid-3", parent="p:a")
    await bench.turn("t4", "p:c", user="ann", agent="other", uid="uid-2", parent="p")
    await bench.turn("t5", "alone", user="ann", agent="other", uid="uid-2")


async def left(bench: Bench) -> set[str]:
    page = await bench.sessions.list_sessions(SessionQuery("default"), 100)
    return {session.key.session_id for session in page.sessions}


async def test_sessions_that_hang_on_one_that_is_deleted_go_with_it(bench: Bench) -> None:
    await family(bench)
    removed = await bench.sessions.delete(SessionKey("default", "p"), "ann")
    assert (removed.sessions, removed.turns) == (4, 4)
    assert await left(bench) == {"alone"}
    assert (await bench.begun("t", "p", user="ann")).created


@pytest.mark.parametrize("purge", [Purge("default", agent_id="hello"), Purge("default", user_id="ann")])
async def test_sessions_that_hang_on_those_that_are_purged_go_with_them(bench: Bench, purge: Purge) -> None:
    await family(bench)
    await bench.sessions.purge(purge)
    assert await left(bench) == (set() if purge.user_id else {"alone"})


async def test_a_session_alone_is_deleted_without_the_one_that_it_hangs_on(bench: Bench) -> None:
    await family(bench)
    await bench.sessions.delete(SessionKey("default", "p:a"))
    assert await left(bench) == {"p", "p:c", "alone"}


async def test_no_turn_begins_in_a_session_whose_parent_is_gone(bench: Bench) -> None:
    await family(bench)
    await bench.begun("t", "p:a", user="ann", agent="other", uid="uid-2", parent="p")
    await bench.sessions.delete(SessionKey("default", "p"), "ann")
    with pytest.raises(SessionNotFound):
        await bench.begin("t6", "p:a", user="ann", agent="other", uid="uid-2", parent="p")
    assert await left(bench) == {"alone"}


async def test_sessions_that_hang_on_one_end_when_it_does(bench: Bench) -> None:
    """Turns of the one that they hang on keep them alive, from their begin on, and a shorter TTL of it ends them."""

    async def ends() -> list[int]:
        page = await bench.sessions.list_sessions(PROJECT, 100)
        assert {session.key.session_id for session in page.sessions} == {"p", "p:a", "p:a:b", "p:c"}
        return [session.expire_ms for session in page.sessions]

    await family(bench)
    for number in range(3):
        await bench.pass_time(50_000)
        await bench.turn(f"more{number}", "p", user="ann")
    assert max(await ends()) == min(await ends())
    await bench.pass_time(50_000)
    begun = await bench.begun("long", "p", user="ann")
    await bench.pass_time(5_000)
    assert max(await ends()) == min(await ends())
    await bench.commit(begun)
    await bench.sessions.update(SessionChange(SessionKey("default", "p"), idle_ms=20_000))
    assert max(await ends()) == min(await ends())
    await bench.pass_time(20_001)
    assert await left(bench) == set()


@pytest.mark.parametrize(("up_to", "expected"), [(0, 20), (20, 20), (18, 18), (1, 1)])
async def test_fork_copies_up_to_a_turn(bench: Bench, up_to: int, expected: int) -> None:
    for n in range(1, 21):
        begun = await bench.begun(f"t{n}", user="ann")
        await bench.commit(begun, messages=n)
    await bench.sessions.update(SessionChange(KEY, metadata={"a": "b"}, pinned_revision=2))
    forked = await bench.sessions.fork(Fork(KEY, "s2", up_to, "ann"))
    assert forked == await bench.sessions.get(SessionKey("default", "s2"), "ann")
    assert (forked.turn_count, forked.message_count) == (expected, sum(range(1, expected + 1)))
    assert (forked.metadata, forked.pinned_revision, forked.usage) == ({"a": "b"}, 2, Usage())
    await bench.turn("new", "s2", user="ann")
    source = await bench.sessions.turns(TurnQuery(KEY, size=100))
    copy = await bench.sessions.turns(TurnQuery(forked.key, size=100))
    assert copy.turns[:-1] == source.turns[:expected]
    assert copy.turns[-1] == b"new\x10" + bytes([expected + 1])
    assert await ids(bench, PROJECT) == ["s2", "s1"]


async def test_fork_of_an_empty_session(bench: Bench) -> None:
    await bench.sessions.create(NewSession(KEY, agent_id="hello", agent_uid=UID))
    assert (await bench.sessions.fork(Fork(KEY, "s2"))).turn_count == 0


async def test_fork_never_overwrites(bench: Bench) -> None:
    await bench.turn("t1")
    await bench.turn("t1", "s2")
    await bench.turn("t1", "anns", user="ann")
    await bench.turn("t1", "others", agent="other", uid="uid-2")
    await bench.begun("t1", "busy")
    for target in ("s1", "s2", "anns", "others"):
        with pytest.raises(SessionAlreadyExists):
            await bench.sessions.fork(Fork(KEY, target))
    with pytest.raises(SessionBusy):  # whoever makes it may still fail
        await bench.sessions.fork(Fork(KEY, "busy"))
    await bench.begun("t2", "s2")  # not left busy by the attempt


@pytest.mark.parametrize("up_to", [2, 99])
async def test_fork_up_to_a_turn_that_is_not_there(bench: Bench, up_to: int) -> None:
    await bench.turn("t1")
    with pytest.raises(InvalidArgument):
        await bench.sessions.fork(Fork(KEY, "s2", up_to))
    with pytest.raises(SessionNotFound):
        await bench.sessions.get(SessionKey("default", "s2"))
