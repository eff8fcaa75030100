"""Whatever happens to the peer, its watch and the reads: nothing older than promised is used, and nothing removed."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from servicekit.errors import Code, ServiceError, Unavailable
from servicekit.watched_cache import Freshness, WatchedCache

FRESHNESS = Freshness(silence=3, recheck_after=5, max_age=60, unreachable_pause=1)
BOUND = max(FRESHNESS.silence, FRESHNESS.recheck_after)
LIMIT = 2
KEYS = st.sampled_from(["a", "b", "c"])


class Absent(ServiceError):
    code = Code.NOT_FOUND
    reason = "ABSENT"


@dataclass
class Get:
    """Somebody who wants a key: since when, and what was removed by then."""

    key: str
    since: float
    removed: int
    task: "asyncio.Task[tuple[str, int]]"


class Peer(RuleBasedStateMachine):
    """A peer that keeps versions by key, tells its watch of changes in order, and answers reads when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 1000.0
        self.version = 0
        self.kept: dict[str, int] = {}
        self.superseded: dict[int, float] = {}
        self.absent_since: dict[str, float] = {}
        self.last_absent: dict[str, float] = {"a": self.now, "b": self.now, "c": self.now}
        self.log: list[tuple[str, int, bool, float]] = []
        self.delivered = 0
        self.removals: dict[str, int] = {}
        """The version of the newest removal of each key that the cache was told of."""
        self.connected = self.caught_up = False
        self.reachable = True
        self.unreachable_at = float("-inf")
        self.gates: list[asyncio.Event] = []
        self.read_at: dict[str, float] = {}
        self.gets: list[Get] = []
        self.cache: WatchedCache[str, tuple[str, int]] = WatchedCache(
            FRESHNESS,
            peer="peer",
            absent=lambda key: Absent(key),
            name_of=lambda key, value: f"name of {key}",
            limit=LIMIT,
            clock=lambda: self.now,
        )

    def teardown(self) -> None:
        async def end() -> None:
            await self.cache.close()
            for get in self.gets:
                get.task.cancel()
            await asyncio.gather(*(get.task for get in self.gets), return_exceptions=True)

        self.loop.run_until_complete(end())
        self.loop.close()

    def settle(self) -> None:
        async def rounds() -> None:
            for _ in range(10):
                await asyncio.sleep(0)

        self.loop.run_until_complete(rounds())
        for get in [get for get in self.gets if get.task.done()]:
            self.gets.remove(get)
            self.judge(get)

    @rule(key=KEYS)
    def write(self, key: str) -> None:
        self.version += 1
        if key in self.kept:
            self.superseded[self.kept[key]] = self.now
        else:
            self.last_absent[key] = self.now
        self.kept[key] = self.version
        self.log.append((key, self.version, False, self.now))

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        key = data.draw(st.sampled_from(sorted(self.kept)))
        self.version += 1
        self.superseded[self.kept.pop(key)] = self.now
        self.log.append((key, self.version, True, self.now))

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.9, 4.0, 6.0, 30.0, 70.0]))
    def wait(self, seconds: float) -> None:
        if not self.reachable:
            self.unreachable_at = self.now + seconds
        self.now += seconds

    @rule()
    def lose_or_find_the_peer(self) -> None:
        self.reachable = not self.reachable
        if not self.reachable:
            self.unreachable_at = self.now

    @precondition(lambda self: not self.connected)
    @rule(resume=st.booleans())
    def watch(self, resume: bool) -> None:
        self.connected = True
        if not resume:
            self.delivered = len(self.log)
            self.cache.watch_began()
        self.caught_up = not resume

    @precondition(lambda self: self.connected)
    @rule()
    def lose_the_watch(self) -> None:
        self.connected = self.caught_up = False
        self.cache.watch_lost()
        self.settle()

    @precondition(lambda self: self.connected)
    @rule()
    def the_watch_speaks(self) -> None:
        if self.delivered == len(self.log):  # a heartbeat
            self.caught_up = True
            self.cache.watch_resumed()
            return
        self.deliver()
        # A stream that stood still brings all that it held up at once.
        while self.delivered < len(self.log) and self.now - self.log[self.delivered][3] > FRESHNESS.silence:
            self.deliver()
        if self.caught_up:
            self.cache.heard()
        self.settle()

    def deliver(self) -> None:
        key, version, removed, _ = self.log[self.delivered]
        self.delivered += 1
        if removed:
            self.removals[key] = version
            self.cache.remove(f"name of {key}", only_if=lambda value: value[1] < version)
        else:
            self.cache.update(f"name of {key}", (key, version), newer_than=lambda value: value[1] <= version)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        async def ask() -> tuple[str, int] | None:
            version, reachable, gate = self.kept.get(key), self.reachable, asyncio.Event()
            self.read_at[key] = self.now
            self.gates.append(gate)
            await gate.wait()
            if not reachable:
                raise Unavailable("peer")
            return None if version is None else (key, version)

        # Who joins a read knows what was so when that began.
        since = self.read_at[key] if self.cache.is_being_read(key) else self.now
        task = self.loop.create_task(self.cache.get(key, ask))
        self.gets.append(Get(key, since, self.removals.get(key, 0), task))
        self.settle()

    @precondition(lambda self: self.gates)
    @rule(data=st.data())
    def answer(self, data: Any) -> None:
        self.gates.pop(data.draw(st.integers(0, len(self.gates) - 1))).set()
        self.settle()

    @rule(key=KEYS)
    def use(self, key: str) -> None:
        value = self.cache.fresh(key)
        if value is None:
            return
        current = self.kept.get(key) == value[1]
        if self.caught_up and self.delivered == len(self.log):
            assert current, "nothing was left for the watch to say"
        assert current or self.now - self.superseded[value[1]] <= BOUND
        assert value[1] > self.removals.get(key, 0)

    @invariant()
    def no_more_is_kept_than_allowed(self) -> None:
        assert len(self.cache) <= LIMIT
        assert len(self.cache._keys) == len(self.cache)

    def judge(self, get: Get) -> None:
        error = get.task.exception()
        # Whoever found the peer unreachable shortly before speaks for it.
        lost = self.unreachable_at + FRESHNESS.unreachable_pause >= get.since or not self.reachable
        if isinstance(error, Unavailable):
            assert lost
        elif isinstance(error, Absent):
            assert get.key not in self.kept or self.last_absent[get.key] >= get.since - BOUND or lost
        else:
            assert error is None
            key, version = get.task.result()
            assert key == get.key
            assert version > get.removed
            bound = FRESHNESS.max_age if lost else BOUND
            assert self.superseded.get(version, self.now) >= get.since - bound


Peer.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWatchedCache = Peer.TestCase


async def test_what_cannot_be_remembered_of_a_flood_of_changes_is_read_again() -> None:
    answers, gate = iter([1, 2, 3]), asyncio.Event()

    async def ask() -> int:
        answer = next(answers)
        await gate.wait()
        return answer

    cache: WatchedCache[str, int] = WatchedCache(
        FRESHNESS, peer="peer", absent=Absent, name_of=lambda key, value: key, limit=LIMIT
    )
    cache.watch_began()
    getting = asyncio.create_task(cache.get("a", ask))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for name in ("a", "b", "c", "d"):
        cache.remove(name)
    gate.set()
    assert await getting == 2


async def test_a_fault_of_a_read_is_logged_and_reaches_who_asked() -> None:
    async def ask() -> int:
        raise ZeroDivisionError

    cache: WatchedCache[str, int] = WatchedCache(
        FRESHNESS, peer="peer", absent=Absent, name_of=lambda key, value: key, limit=LIMIT
    )
    with pytest.raises(ZeroDivisionError):
        await cache.get("a", ask)
    assert len(cache) == 0
