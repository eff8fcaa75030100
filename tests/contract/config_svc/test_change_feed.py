"""The change feed: on both stores."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import timedelta

import pytest

from config_svc.agents.change_feed import ChangeFeed, FeedEvent
from config_svc.agents.configs import AgentConfigs
from config_svc.metrics import Metrics
from config_svc.model.change import ChangeType
from config_svc.model.errors import CursorTooOld, WatcherTooSlow
from config_svc.ports.store import Store
from servicekit.errors import InvalidArgument, Unavailable
from tests.contract.config_svc.conftest import Clock, spec

P = "default"
BEAT = timedelta(milliseconds=100)


@pytest.fixture
async def feed(store: Store, clock: Clock, metrics: Metrics) -> AsyncIterator[ChangeFeed]:
    feed = ChangeFeed(store, clock=clock, metrics=metrics, peer="db", poll=0.5, buffer=10)
    task = asyncio.create_task(feed.follow())
    async with asyncio.timeout(60):
        while not feed.healthy:
            await asyncio.sleep(0.01)
    yield feed
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def changes(events: AsyncGenerator[FeedEvent], count: int) -> list[tuple[str, ChangeType, int]]:
    """The next changes of a watch: agent id, what happened, revision."""
    found: list[tuple[str, ChangeType, int]] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            event = await anext(events)
            if event.change is not None:
                config = event.change.agent_config
                found.append((config.id, event.change.type, config.revision))
    return found


async def test_a_watch_begins_with_a_heartbeat_and_sends_every_change(agents: AgentConfigs, feed: ChangeFeed) -> None:
    before = await agents.create(P, "before", spec())
    async with aclosing(feed.watch(None, "", None)) as events:
        assert (await anext(events)).change is None
        made = await agents.create(P, "a", spec())
        await agents.update(P, "a", spec(display_name="A"), ["display_name"])
        await agents.update(P, "a", spec(display_name="A"), ["display_name"])
        await agents.rollback(P, "a", 1)
        await agents.delete(P, "a")
        await agents.undelete(P, made.uid, "b")
        await agents.delete(P, "before", etag=before.etag)
        assert await changes(events, 6) == [
            ("a", ChangeType.CREATED, 1),
            ("a", ChangeType.UPDATED, 2),
            ("a", ChangeType.UPDATED, 3),
            ("a", ChangeType.DELETED, 3),
            ("b", ChangeType.CREATED, 3),
            ("before", ChangeType.DELETED, 1),
        ]


async def test_a_change_carries_the_agent_config_right_after_it(agents: AgentConfigs, feed: ChangeFeed) -> None:
    async with aclosing(feed.watch(None, "", None)) as events:
        await anext(events)
        created = await agents.create(P, "a", spec(parameters={"n": [True, 1, 0.5]}))
        deleted = await agents.delete(P, "a")
        seen = [(await anext(events)).change for _ in range(2)]
    assert [one.agent_config for one in seen if one] == [created, deleted]


async def test_any_cursor_resumes_right_after_it(agents: AgentConfigs, feed: ChangeFeed) -> None:
    cursors: list[str] = []
    async with aclosing(feed.watch(None, "", None)) as events:
        cursors.append((await anext(events)).cursor)
        for number in range(25):  # more than the ring holds
            await agents.create(P, f"a{number}", spec())
            cursors.append((await anext(events)).cursor)
    for place in (0, 1, 14, 15, 16, 24):
        async with aclosing(feed.watch(None, cursors[place], None)) as events:
            assert (await anext(events)).cursor == cursors[place]
            seen = [one[0] for one in await changes(events, 25 - place)]
            assert seen == [f"a{number}" for number in range(place, 25)]


async def test_a_watch_of_one_project_gets_on_by_heartbeats(agents: AgentConfigs, feed: ChangeFeed) -> None:
    async with aclosing(feed.watch("mine", "", BEAT)) as events:
        start = await anext(events)
        for number in range(15):
            await agents.create(P, f"a{number}", spec())
        async with asyncio.timeout(60):
            beat = await anext(events)
            while beat.cursor == start.cursor:
                beat = await anext(events)
        assert beat.change is None
        await agents.create("mine", "a", spec())
        assert await changes(events, 1) == [("a", ChangeType.CREATED, 1)]
    async with aclosing(feed.watch("mine", beat.cursor, None)) as events:
        await anext(events)
        assert await changes(events, 1) == [("a", ChangeType.CREATED, 1)]


async def test_heartbeats_come_while_nothing_changes(feed: ChangeFeed) -> None:
    async with aclosing(feed.watch(None, "", BEAT)) as events, asyncio.timeout(60):
        beats = [await anext(events) for _ in range(4)]
    assert {beat.change for beat in beats} == {None}
    assert len({beat.cursor for beat in beats}) == 1


@pytest.mark.parametrize("cursor", ["x", "ü", "A" * 32, "AAAA", "=" * 32, "!" * 32])
async def test_a_cursor_that_is_none_is_refused(feed: ChangeFeed, cursor: str) -> None:
    # The third has the right shape, of a feed that is not this one.
    expected = CursorTooOld if cursor == "A" * 32 else InvalidArgument
    with pytest.raises(expected):
        await anext(feed.watch(None, cursor, None))


@pytest.mark.parametrize("beat", [timedelta(0), timedelta(milliseconds=99), timedelta(seconds=61), timedelta.max])
async def test_a_heartbeat_outside_its_bounds_is_refused(feed: ChangeFeed, beat: timedelta) -> None:
    with pytest.raises(InvalidArgument):
        await anext(feed.watch(None, "", beat))


async def test_a_cursor_before_what_is_kept_is_too_old(
    agents: AgentConfigs, feed: ChangeFeed, store: Store, clock: Clock
) -> None:
    async with aclosing(feed.watch(None, "", None)) as events:
        start = (await anext(events)).cursor
        await agents.create(P, "old", spec())
        middle = (await anext(events)).cursor
    clock.advance(days=7)
    await agents.create(P, "new", spec())
    assert await store.compact(clock(), 1000) == 1
    assert await store.compact(clock(), 1000) == 0
    with pytest.raises(CursorTooOld):
        await anext(feed.watch(None, start, None))
    async with aclosing(feed.watch(None, middle, None)) as events:
        await anext(events)
        assert await changes(events, 1) == [("new", ChangeType.CREATED, 1)]
    clock.advance(seconds=1)
    assert await store.compact(clock(), 1000) == 1
    assert await store.changes(0, 10) == []
    async with aclosing(feed.watch(None, "", None)) as events:
        at_end = (await anext(events)).cursor
    async with aclosing(feed.watch(None, at_end, None)) as events:
        assert (await anext(events)).cursor == at_end


async def test_compaction_keeps_no_more_than_asked(agents: AgentConfigs, store: Store, clock: Clock) -> None:
    for number in range(5):
        await agents.create(P, f"a{number}", spec())
    assert await store.compact(clock() - timedelta(days=1), 2) == 3
    position = await store.feed_position()
    kept = await store.changes(0, 10)
    assert [one.agent_config.id for one in kept] == ["a3", "a4"]
    assert position.compacted == kept[0].sequence - 1
    assert position.last == kept[1].sequence


async def test_a_watcher_that_falls_out_of_the_buffer_is_cut_off(agents: AgentConfigs, feed: ChangeFeed) -> None:
    async with aclosing(feed.watch(None, "", None)) as events:
        start = (await anext(events)).cursor
        await agents.create(P, "first", spec())
        assert await changes(events, 1) == [("first", ChangeType.CREATED, 1)]
        async with asyncio.timeout(60):  # it does not read while the feed goes on by more than it holds
            for number in range(12):
                await agents.create(P, f"a{number}", spec())
            while not feed._ring or feed._ring[-1].agent_config.id != "a11":
                await asyncio.sleep(0.01)
        with pytest.raises(WatcherTooSlow):
            await changes(events, 12)
    async with aclosing(feed.watch(None, start, None)) as events:
        await anext(events)
        assert len(await changes(events, 13)) == 13, "nothing is lost by resuming"


async def test_watches_end_when_the_feed_loses_the_database(feed: ChangeFeed, metrics: Metrics) -> None:
    events = feed.watch(None, "", None)
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.05)
    await feed._set_health(False)
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await anext(feed.watch(None, "", None))


async def test_the_ring_is_bounded_in_bytes_too(
    agents: AgentConfigs, store: Store, clock: Clock, metrics: Metrics
) -> None:
    feed = ChangeFeed(store, clock=clock, metrics=metrics, peer="db", poll=0.2, buffer=1000, buffer_bytes=100_000)
    task = asyncio.create_task(feed.follow())
    await asyncio.wait_for(feed.reached(), 60)
    async with aclosing(feed.watch(None, "", None)) as events:
        start = (await anext(events)).cursor
        for number in range(10):
            await agents.create(P, f"a{number}", spec(instructions="x" * 40_000))
            await changes(events, 1)
    assert len(feed._ring) == 2
    async with aclosing(feed.watch(None, start, None)) as events:
        await anext(events)
        assert len(await changes(events, 10)) == 10
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
