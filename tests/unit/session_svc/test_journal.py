"""Watching a journal: how a watch ends where the turn does not, how many there are, and what a slow reader holds."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from contract.errors import TooManyWatches
from servicekit.errors import Draining
from session_svc.journal import Journals
from session_svc.model.errors import LeaseLost, TurnNotFound
from session_svc.model.journal import JournalEvent, JournalPage, NewEvents, TurnWatch
from session_svc.model.session import SessionBounds, SessionKey
from session_svc.model.turn import BeginTurn, Begun
from tests.doubles.session_svc.memory_journals import MemoryJournals
from tests.doubles.session_svc.memory_state import MemoryState
from tests.doubles.session_svc.memory_turns import MemoryTurns
from tests.unit.event_loop import settle

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
    await settle()
    journals.drain()
    with pytest.raises(Draining):
        while True:
            await asyncio.wait_for(waiting, 60)
            waiting = asyncio.ensure_future(anext(pages))


async def test_a_turn_that_nobody_runs_any_more_is_not_watched_for_ever() -> None:
    state = MemoryState(SessionBounds())
    turns = MemoryTurns(state)
    await begun_with_an_event(state, turns)
    state.sessions.clear()  # its lease has run out
    with pytest.raises(LeaseLost):
        async with asyncio.timeout(60):
            async for _ in Journals(MemoryJournals(state, turns), patience=0.1).watch(TurnWatch(KEY, "", "t1")):
                pass


async def test_watches_are_bounded_and_each_that_ends_makes_room() -> None:
    state = MemoryState(SessionBounds())
    turns = MemoryTurns(state)
    await begun_with_an_event(state, turns)
    journals = Journals(MemoryJournals(state, turns), max_watches=3)
    open_ones = [journals.watch(TurnWatch(KEY, "", "t1")) for _ in range(4)]
    for pages in open_ones[:3]:
        assert await anext(pages)
    for refused in (open_ones[3], journals.watch(TurnWatch(KEY, "", "t1", present_only=True))):
        with pytest.raises(TooManyWatches) as refusal:
            await anext(refused)
        assert refusal.value.metadata == {"scope": "session_svc", "limit": "3"}
        assert refusal.value.retry_after
    gone = asyncio.create_task(_all_of(open_ones[0]))  # a caller that leaves while it waits
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    with pytest.raises(TurnNotFound):
        await anext(journals.watch(TurnWatch(KEY, "", "none")))
    async with contextlib.aclosing(journals.watch(TurnWatch(KEY, "", "t1"))) as pages:
        assert await anext(pages)
    for pages in open_ones[1:3]:
        await pages.aclose()
    assert not journals._watches


async def _all_of(pages: AsyncGenerator[tuple[JournalEvent, ...], None]) -> None:
    async with contextlib.aclosing(pages):
        async for _ in pages:
            pass


async def test_nothing_is_read_ahead_for_a_reader_that_is_slow() -> None:
    state = MemoryState(SessionBounds())
    turns = MemoryTurns(state)
    begun = await begun_with_an_event(state, turns)
    store = MemoryJournals(state, turns)
    reads: list[JournalPage] = []
    read = store.read

    async def counted(watch: TurnWatch, waiter_id: str) -> JournalPage:
        reads.append(await read(watch, waiter_id))
        return reads[-1]

    store.read = counted  # type: ignore[method-assign]
    async with contextlib.aclosing(Journals(store).watch(TurnWatch(KEY, "", "t1"))) as pages:
        assert len(await anext(pages)) == 1
        for number in range(2, 102):
            await store.append(NewEvents(begun.lease, number, (b"x" * 1000,)))
            await asyncio.sleep(0)
        assert len(reads) == 1
        assert len(await anext(pages)) == 100
