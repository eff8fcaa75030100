"""What is Redis' own business: indexes that do not fill up, replicas that are waited for, tokens that come twice."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
import redis
from prometheus_client import CollectorRegistry

from session_svc.metrics import Metrics
from session_svc.model.errors import LeaseLost, SessionAlreadyExists, SessionBusy, SessionDamaged, SessionNotFound
from session_svc.model.session import Fork, NewSession, SessionBounds, SessionKey, Usage
from session_svc.model.turn import BeginTurn, CommitTurn, Lease, TurnQuery
from session_svc.redis_client.link import Command, RedisUnavailable, Reply
from session_svc.redis_store.agents import RedisAgents
from session_svc.redis_store.indexes import IndexAdditions
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.sessions import RedisSessions
from session_svc.redis_store.sweeper import Sweeper
from session_svc.redis_store.turns import RedisTurns
from session_svc.redis_store.wakeups import RedisWakes
from session_svc.wiring import open_redis
from tests.contract.session_svc.bench import Bench, redis_bench
from tests.service.session_svc.replica import UID, refused, replica

HOUR_MS = 3_600_000


async def test_what_is_refused_leaves_no_index_for_ever(redis_url: str) -> None:
    index_additions = IndexAdditions()
    async with open_redis(redis_url, 1) as ([link], dial), RedisWakes(dial).open() as wakes:
        scripts = RedisScripts(link)
        turns = RedisTurns(scripts, wakes, SessionBounds(), index_additions)
        sessions = RedisSessions(scripts, turns, SessionBounds(), index_additions)
        await sessions.create(NewSession(SessionKey("default", "s1"), "hello", UID, "ann"))
        with pytest.raises(SessionNotFound):
            turn = BeginTurn(SessionKey("default", "s1"), "hello", UID, "t1", "bob")
            await turns.begin(turn, turns.new_waiter_id(), 0)
        with pytest.raises(SessionAlreadyExists):
            await sessions.create(NewSession(SessionKey("default", "s1"), "hello", UID, "cat"))
        with redis.Redis.from_url(redis_url) as client:
            assert len(client.keys("idx:user:*")) == 3
            await Sweeper(sessions, index_additions, Metrics(CollectorRegistry())).sweep()
            assert [client.pttl(index) > 0 for index in client.keys("idx:*")] == [True] * 5


@contextlib.asynccontextmanager
async def sweeping(
    url: str, registry: CollectorRegistry | None = None
) -> AsyncIterator[tuple[RedisSessions, Sweeper, Bench]]:
    index_additions = IndexAdditions()
    async with open_redis(url, 1) as ([link], dial), RedisWakes(dial).open() as wakes, redis_bench(url) as bench:
        scripts = RedisScripts(link)
        turns = RedisTurns(scripts, wakes, SessionBounds(), index_additions)
        sessions = RedisSessions(scripts, turns, SessionBounds(), index_additions)
        yield sessions, Sweeper(sessions, index_additions, Metrics(registry or CollectorRegistry())), bench


async def test_indexes_do_not_fill_up_with_the_dead(redis_url: str) -> None:
    async with sweeping(redis_url) as (sessions, sweeper, bench):
        with redis.Redis.from_url(redis_url) as client:
            for generation in range(12):
                for n in range(20):
                    key = SessionKey("default", f"s{generation}-{n}")
                    await sessions.create(NewSession(key, "hello", UID, "ann", idle_ms=HOUR_MS, lifetime_ms=HOUR_MS))
                await sweeper.sweep()
                await bench.pass_time(HOUR_MS)  # the whole generation is dead, and nobody lists
            for index in client.keys("idx:*"):
                assert client.zcard(index) < 100, "of 240 that were ever in it"
                assert client.pttl(index) > 0


async def test_the_living_are_estimated_and_the_gone_counted(redis_url: str) -> None:
    registry = CollectorRegistry()
    async with sweeping(redis_url, registry) as (sessions, sweeper, bench):
        for n in range(40):
            idle = HOUR_MS if n % 2 else 10 * HOUR_MS
            await sessions.create(NewSession(SessionKey("default", f"s{n}"), "hello", UID, idle_ms=idle))
        await sweeper.sweep()
        assert registry.get_sample_value("parley_sessions_alive") == 40
        await bench.pass_time(2 * HOUR_MS)
        await sweeper.census()  # nobody makes or lists sessions any more
        await sweeper.census()
        assert registry.get_sample_value("parley_sessions_alive") == 20
        assert registry.get_sample_value("parley_sessions_gone_total") == 20


async def test_the_living_stay_in_the_indexes(redis_url: str) -> None:
    async with sweeping(redis_url) as (sessions, sweeper, bench):
        for n in range(50):
            await sessions.create(NewSession(SessionKey("default", f"s{n}"), "hello", UID, idle_ms=HOUR_MS))
        await bench.pass_time(HOUR_MS // 2)
        assert await sweeper.sweep() == 0
        with redis.Redis.from_url(redis_url) as client:
            assert client.zcard("idx:project:{default}") == 50


class AwayFirst(RedisScripts):
    """Where indexes and the set of agents are, nobody answers while `away`."""

    away = False

    async def run_in_order(self, *stages: Sequence[Command]) -> list[Reply]:
        if self.away and len(stages) > 1 and stages[0]:
            error = RedisUnavailable()
            error.stage = 0
            raise error
        return await super().run_in_order(*stages)


@pytest.mark.parametrize("how", ["begin", "create"])
async def test_an_agent_that_redis_was_away_for_is_written_down_the_next_time(redis_url: str, how: str) -> None:
    index_additions = IndexAdditions()
    async with open_redis(redis_url, 1) as ([link], dial), RedisWakes(dial).open() as wakes:
        scripts = AwayFirst(link)
        turns = RedisTurns(scripts, wakes, SessionBounds(), index_additions)
        sessions = RedisSessions(scripts, turns, SessionBounds(), index_additions)
        key = SessionKey("default", "s1")

        async def work() -> None:
            if how == "create":
                await sessions.create(NewSession(key, "hello", UID))
            else:
                await turns.begin(BeginTurn(key, "hello", UID, "t1"), turns.new_waiter_id(), 0)

        await link.ping()
        scripts.away = True
        with pytest.raises(RedisUnavailable):
            await work()
        scripts.away = False
        await work()
        assert [agent.agent_uid for agent in await RedisAgents(scripts).agents()] == [UID]


async def test_a_turn_that_too_few_replicas_have_is_not_acknowledged(redis_url: str) -> None:
    async with replica(redis_url, wait_replicas=1, wait_timeout=0.1) as svc:
        begun = await svc.begin()
        with refused("PEER_UNAVAILABLE") as outcome:
            await svc.commit(begun)
        assert outcome.error.metadata == {"peer": "redis replicas"}


async def test_a_repeated_commit_is_a_write_for_replicas_to_have(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        begun = await bench.begun("t1")
        await bench.commit(begun)
        with redis.Redis.from_url(redis_url) as client:
            before = client.info("persistence")["rdb_changes_since_last_save"]
            assert (await bench.commit(begun)).turn_number == 1
            assert client.info("persistence")["rdb_changes_since_last_save"] > before


async def test_a_commit_that_fails_stores_nothing(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        begun = await bench.begun("t1")
        with redis.Redis.from_url(redis_url) as client:
            client.hset("{default:s1}:meta", "cached", str(2**63 - 1))
        with pytest.raises(SessionDamaged):
            await bench.turns.commit(CommitTurn(begun.lease, b"x", 2, usage=Usage(1, 1, 1)))
        assert (await bench.commit(begun)).turn_number == 1
        assert len((await bench.sessions.turns(TurnQuery(begun.lease.key))).turns) == 1


async def test_a_token_that_comes_twice_acknowledges_nothing_wrong(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        lost = await bench.begun("t1")
        await bench.sessions.delete(lost.lease.key)
        await bench.begun("t2")
        with redis.Redis.from_url(redis_url) as client:  # as if made again within the same millisecond
            client.hset("{default:s1}:meta", "token", str(lost.lease.token))
        same = Lease(lost.lease.key, "t2", lost.lease.token)
        await bench.turns.commit(CommitTurn(same, b"x", 2))
        with pytest.raises(LeaseLost):
            await bench.commit(lost)
        assert (await bench.turns.commit(CommitTurn(same, b"x", 2))).turn_number == 1


class Meanwhile(RedisScripts):
    """Lets something happen right before turns are read for the nth time."""

    reads = 0
    nth = 1
    happens: Callable[[], Awaitable[None]]

    async def run(self, *commands: Command) -> list[Reply]:
        if commands[0][0] == "LRANGE":
            self.reads += 1
            if self.reads == self.nth:
                await self.happens()
        return await super().run(*commands)


@contextlib.asynccontextmanager
async def dropping(url: str, nth: int, drops: int = 3) -> AsyncIterator[RedisSessions]:
    """A full session of turns 1 to 20, which drops some of its oldest before the nth read of turns."""
    limits = SessionBounds(turns_per_session=20)
    async with contextlib.AsyncExitStack() as stack:
        bench = await stack.enter_async_context(redis_bench(url, limits))
        [link], dial = await stack.enter_async_context(open_redis(url, 1))
        scripts = Meanwhile(link)
        wakes = await stack.enter_async_context(RedisWakes(dial).open())

        async def happens() -> None:
            for n in range(21, 21 + drops):
                await bench.turn(f"t{n}")

        for n in range(1, 21):
            await bench.turn(f"t{n}")
        scripts.nth, scripts.happens = nth, happens
        yield RedisSessions(scripts, RedisTurns(scripts, wakes, limits, IndexAdditions()), limits, IndexAdditions())


async def stored(sessions: RedisSessions, session_id: str) -> list[str]:
    query = TurnQuery(SessionKey("default", session_id))
    return [turn[: -len(b"\x10n")].decode() for turn in (await sessions.turns(query)).turns]


async def test_a_fork_has_every_turn_once_while_the_source_drops_its_oldest(redis_url: str) -> None:
    async with dropping(redis_url, 1) as sessions:
        fork = await sessions.fork(Fork(SessionKey("default", "s1"), "copy"))
        assert (fork.first_turn, fork.last_turn, fork.message_count) == (4, 20, 34)
        assert await stored(sessions, "copy") == [f"t{n}" for n in range(4, 21)]


async def test_a_fork_with_a_hole_is_refused_and_works_when_tried_again(redis_url: str) -> None:
    async with dropping(redis_url, 2, drops=18) as sessions:
        fork = Fork(SessionKey("default", "s1"), "copy")
        with pytest.raises(RedisUnavailable):
            await sessions.fork(fork)
        copy = await sessions.fork(fork)
        assert (copy.first_turn, copy.last_turn) == (19, 38)


async def test_a_fork_waits_for_who_makes_the_session_and_never_overwrites_one(redis_url: str) -> None:
    async with redis_bench(redis_url) as bench:
        await bench.turn("t1")
        making = await bench.begun("earlier-try", session="copy")
        with pytest.raises(SessionBusy):
            await bench.sessions.fork(Fork(SessionKey("default", "s1"), "copy"))
        await bench.commit(making)
        await bench.begun("t2", session="copy")
        with pytest.raises(SessionAlreadyExists):
            await bench.sessions.fork(Fork(SessionKey("default", "s1"), "copy"))
        forked = await bench.begun("earlier-try", session="other")
        await bench.turns.abort(forked.lease)
        assert (await bench.sessions.fork(Fork(SessionKey("default", "s1"), "other"))).turn_count == 1


async def test_a_list_has_every_turn_once_while_the_oldest_are_dropped(redis_url: str) -> None:
    async with dropping(redis_url, 1) as sessions:
        assert await stored(sessions, "s1") == [f"t{n}" for n in range(4, 24)]
