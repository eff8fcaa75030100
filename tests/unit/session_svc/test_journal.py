"""Watching a journal: how a watch ends where the turn does not."""

import asyncio

import pytest

from servicekit.errors import Draining
from session_svc.journal import Journals
from session_svc.model.errors import LeaseLost
from session_svc.model.journal import NewEvents, TurnWatch
from session_svc.model.session import SessionBounds, SessionKey
from session_svc.model.turn import BeginTurn, Begun
from tests.doubles.session_svc.memory_journals import MemoryJournals
from tests.doubles.session_svc.memory_state import MemoryState
from tests.doubles.session_svc.memory_turns import MemoryTurns

KEY = SessionKey("default", "s1")


async def begun_with_an_event(state: MemoryState, turns: MemoryTurns) -> Begun:
    begun = await turns.begin(BeginTurn(KEY, "hello", "uid", "t1"), turns.new_waiter_id(), 0)
    assert isinstance(begun, Begun)
    await MemoryJournals(state, turns).append(NewEvents(begun.lease, 1, (b"a",)))
    return begun


async def test_the_end_of_the_process_ends_every_watch() -> None:
    state = MemoryState(SessionBounds())
    turns = MemoryTurns(state)
    await begun_with_an_event(state, turns)
    journals = Journals(MemoryJournals(state, turns))
    pages = journals.watch(TurnWatch(KEY, "", "t1"))
    assert [event.data for event in await anext(pages)] == [b"a"]
    waiting = asyncio.ensure_future(anext(pages))
    await asyncio.sleep(0.05)
    journals.drain()
    with pytest.raises(Draining):
        while True:
            await asyncio.wait_for(waiting, 5)
            waiting = asyncio.ensure_future(anext(pages))


async def test_a_turn_that_nobody_runs_any_more_is_not_watched_for_ever() -> None:
    state = MemoryState(SessionBounds())
    turns = MemoryTurns(state)
    begun = await begun_with_an_event(state, turns)
    await turns.abort(begun.lease)
    with pytest.raises(LeaseLost):
        async with asyncio.timeout(10):
            async for _ in Journals(MemoryJournals(state, turns), patience=0.1).watch(TurnWatch(KEY, "", "t1")):
                pass
