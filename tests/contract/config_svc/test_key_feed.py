"""The watch of API keys: on both stores."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta

import pytest

from config_svc.access.api_keys import ApiKeys
from config_svc.access.key_feed import AccessFeed
from config_svc.access.projects import Projects
from config_svc.metrics import Metrics
from config_svc.model.errors import WatcherTooSlow
from config_svc.ports.access import KeyTail
from config_svc.ports.store import Store
from config_svc.sweep import Sweep
from servicekit.errors import InvalidArgument, Unavailable
from tests.contract.config_svc.conftest import Clock, wanted_key

P = "mine"
BEAT = timedelta(milliseconds=50)


@pytest.fixture
async def feed(store: Store, clock: Clock, metrics: Metrics) -> AsyncIterator[AccessFeed]:
    feed = AccessFeed(store, clock=clock, metrics=metrics, peer="db")
    task = asyncio.create_task(feed.follow())
    async with asyncio.timeout(60):
        while not feed.healthy:
            await asyncio.sleep(0.01)
    yield feed
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def ended(watch: AsyncGenerator[Sequence[str]], count: int) -> list[str]:
    """The next ids that a watch sends."""
    found: list[str] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            found += await anext(watch)
    return found


async def test_every_end_is_sent_in_order(feed: AccessFeed, keys: ApiKeys, projects: Projects) -> None:
    ids = [(await keys.create(wanted_key()))[0].id for _ in range(4)]
    async with aclosing(feed.watch(None)) as watch:
        assert await anext(watch) == []
        await keys.revoke(P, ids[1])
        await keys.revoke(P, ids[1])
        new, _, _ = await keys.rotate(P, ids[2], None)
        assert await ended(watch, 2) == [ids[1], ids[2]]
        await projects.delete(P)
        assert sorted(await ended(watch, 4)) == sorted([ids[0], ids[2], ids[3], new.id])


async def test_heartbeats_come_while_nothing_ends(feed: AccessFeed) -> None:
    async with aclosing(feed.watch(BEAT)) as watch, asyncio.timeout(60):
        assert [await anext(watch) for _ in range(5)] == [[]] * 5
    for wrong in (timedelta(0), timedelta(milliseconds=49), timedelta(seconds=61)):
        with pytest.raises(InvalidArgument):
            await anext(feed.watch(wrong))


async def test_a_revocation_does_not_wait_for_a_heartbeat(feed: AccessFeed, keys: ApiKeys) -> None:
    made, _ = await keys.create(wanted_key())
    async with aclosing(feed.watch(timedelta(seconds=60))) as watch:
        await anext(watch)
        begun = time.monotonic()
        await keys.revoke(P, made.id)
        assert await ended(watch, 1) == [made.id]
        assert time.monotonic() - begun < 30


async def test_a_heartbeat_is_not_sent_for_a_database_that_says_nothing(
    store: Store, clock: Clock, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is alive proves nothing: what counts is that the database was read."""
    silent = asyncio.Event()

    async def changes(tail: KeyTail, after: int, limit: int) -> Sequence[object]:
        if silent.is_set():
            await asyncio.sleep(60)
        return []

    async with store.key_tail() as tail:
        monkeypatch.setattr(type(tail), "key_changes", changes)
    feed = AccessFeed(store, clock=clock, metrics=metrics, peer="db", poll=0.05)
    task = asyncio.create_task(feed.follow())
    async with asyncio.timeout(60):
        while not feed.healthy:
            await asyncio.sleep(0.01)
    async with aclosing(feed.watch(BEAT)) as watch:
        async with asyncio.timeout(60):
            for _ in range(3):
                await anext(watch)
        silent.set()
        with pytest.raises(TimeoutError):
            for _ in range(5):  # some may have been due
                async with asyncio.timeout(20 * BEAT.total_seconds()):
                    await anext(watch)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_ends_with_the_database(store: Store, clock: Clock, metrics: Metrics, keys: ApiKeys) -> None:
    feed = AccessFeed(store, clock=clock, metrics=metrics, peer="db")
    with pytest.raises(Unavailable):
        await anext(feed.watch(None))
    task = asyncio.create_task(feed.follow())
    async with asyncio.timeout(60):
        while not feed.healthy:
            await asyncio.sleep(0.01)
    watch = feed.watch(timedelta(seconds=60))
    await anext(watch)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(Unavailable):
        await anext(watch)


async def test_a_watch_of_before_a_loss_does_not_go_on_after_it(
    store: Store, clock: Clock, metrics: Metrics, keys: ApiKeys
) -> None:
    """What ended meanwhile would be missing: also where its reader did not notice the loss."""
    feed = AccessFeed(store, clock=clock, metrics=metrics, peer="db")
    made, _ = await keys.create(wanted_key())

    async def followed() -> asyncio.Task[None]:
        task = asyncio.create_task(feed.follow())
        async with asyncio.timeout(60):
            while not feed.healthy:
                await asyncio.sleep(0.01)
        return task

    first = await followed()
    watch = feed.watch(timedelta(seconds=60))
    await anext(watch)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await keys.revoke(P, made.id)
    second = await followed()
    with pytest.raises(Unavailable):
        await anext(watch)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


async def test_a_slow_watcher_is_cut_off(store: Store, clock: Clock, metrics: Metrics, keys: ApiKeys) -> None:
    feed = AccessFeed(store, clock=clock, metrics=metrics, peer="db", buffer=3)
    task = asyncio.create_task(feed.follow())
    await asyncio.wait_for(feed.reached(), 60)
    ids = [(await keys.create(wanted_key()))[0].id for _ in range(5)]
    async with aclosing(feed.watch(None)) as slow, aclosing(feed.watch(None)) as quick:
        await anext(slow)
        await anext(quick)
        for one in ids:
            await keys.revoke(P, one)
            assert await ended(quick, 1) == [one]
        with pytest.raises(WatcherTooSlow):
            await anext(slow)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_is_swept_was_sent_long_before(feed: AccessFeed, keys: ApiKeys, sweep: Sweep, clock: Clock) -> None:
    made, _ = await keys.create(wanted_key())
    await keys.revoke(P, made.id)
    clock.advance(hours=2)
    await sweep.once()
    async with aclosing(feed.watch(None)) as watch:
        await anext(watch)
        other, _ = await keys.create(wanted_key())
        await keys.revoke(P, other.id)
        assert await ended(watch, 1) == [other.id]
