"""What is Redis' own business: indexes that do not fill up, replicas that are waited for, tokens that come twice."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import redis

from session_svc.errors import LeaseLost
from session_svc.model import CommitTurn, Lease, Limits, NewSession, SessionKey, TurnQuery, Usage
from session_svc.redis_address import RedisAddress
from session_svc.redis_link import RedisFault, RedisLink
from session_svc.redis_sessions import RedisSessions
from session_svc.redis_store import Births, RedisScripts
from session_svc.redis_sweeper import Sweeper
from session_svc.redis_turns import RedisTurns
from session_svc.redis_wake import RedisWakes
from tests.contract.session_svc.bench import Bench, redis_bench
from tests.service.session_svc.replica import UID, refused, replica

HOUR_MS = 3_600_000


@contextlib.asynccontextmanager
async def sweeping(url: str) -> AsyncIterator[tuple[RedisSessions, Sweeper, Bench]]:
    address, births = RedisAddress.parse(url), Births()
    async with RedisLink(address).open() as link, RedisWakes(address).open() as wakes, redis_bench(url) as bench:
        scripts = RedisScripts(link)
        turns = RedisTurns(scripts, wakes, Limits(), births)
        sessions = RedisSessions(scripts, turns, Limits(), births)
        yield sessions, Sweeper(sessions, births), bench


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


async def test_the_living_stay_in_the_indexes(redis_url: str) -> None:
    async with sweeping(redis_url) as (sessions, sweeper, bench):
        for n in range(50):
            await sessions.create(NewSession(SessionKey("default", f"s{n}"), "hello", UID, idle_ms=HOUR_MS))
        await bench.pass_time(HOUR_MS // 2)
        assert await sweeper.sweep() == 0
        with redis.Redis.from_url(redis_url) as client:
            assert client.zcard("idx:project:{default}") == 50


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
        with pytest.raises(RedisFault):
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
