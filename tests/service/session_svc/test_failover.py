"""What is acknowledged stays while primaries are killed, frozen and replaced, and turns go on: cluster and Sentinel."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.servers.redis_nodes import RedisCluster, SentinelGroup
from tests.servers.stores import Choice
from tests.service.session_svc.replica import UID, refused, replica
from tests.service.session_svc.talkers import all_go_on, load


def meta(session: str) -> str:
    return f"{{default:{session}}}:meta"


async def test_failovers_under_load_lose_and_double_nothing(breakable: RedisCluster) -> None:
    sessions = [f"load-{n}" for n in range(12)]
    async with load(breakable.url, sessions, wait_replicas=1, wait_timeout=0.3, lease=4) as talkers:
        for _ in range(2):
            await all_go_on(talkers)
            victim = breakable.owner(meta(sessions[0]))
            victim.kill()
            await all_go_on([talker for talker in talkers if breakable.owner(meta(talker.session)) is not victim])
            await asyncio.to_thread(victim.start)
            await all_go_on(talkers)
            await asyncio.to_thread(breakable.mend)


async def test_a_frozen_primary_holds_up_what_is_on_it_alone_until_its_replica_takes_over(
    breakable: RedisCluster,
) -> None:
    shared = ["agents", "idx:project:{default}", "idx:agent:{default:hello}", f"fence:{{default:{UID}}}"]
    victim = next(node for node in breakable.current_primaries() if node not in map(breakable.owner, shared))
    frozen = next(name for n in itertools.count() if breakable.owner(meta(name := f"s{n}")) is victim)
    other = next(name for n in itertools.count() if breakable.owner(meta(name := f"s{n}")) is not victim)
    async with replica(breakable.url) as svc:
        for session in (frozen, other):
            await svc.turn(session, "before")
        victim.pause()
        await svc.turn(other, "meanwhile")
        assert await svc.serves()
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    begun = await svc.begin(frozen)
                    break
        await svc.commit(begun, "after")
        victim.resume()
        assert await svc.said(frozen) == ["before", "after"]


async def test_sessions_that_are_there_need_no_index(breakable: RedisCluster) -> None:
    indexed = "idx:project:{default}"
    primary = breakable.owner(indexed)
    [follower] = breakable.replicas_of(primary)
    uids = (f"{UID[:-4]}{n:04}" for n in itertools.count())
    uid = next(uid for uid in uids if breakable.owner(f"fence:{{default:{uid}}}") is not primary)
    ids = (name for n in itertools.count() if breakable.owner(meta(name := f"s{n}")) is not primary)
    there, new = next(ids), next(ids)
    async with replica(breakable.url) as svc:
        await svc.turn(there, "before", agent_uid=uid)
        follower.pause()  # so that nobody takes over
        primary.kill()
        await svc.turn(there, "meanwhile", agent_uid=uid)
        with refused("PEER_UNAVAILABLE"):
            await svc.begin(new, agent_uid=uid)
        follower.resume()
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await svc.turn(new, agent_uid=uid)
                    break
        assert await svc.said(there) == ["before", "meanwhile"]
        assert breakable.owner(indexed).client.zcard(indexed) == 2


@pytest.fixture
def sentinels(server_choice: Choice, tmp_path: Path) -> Iterator[SentinelGroup]:
    """A primary, two replicas and three Sentinels, for the test to take apart."""
    if server_choice.kind != "embedded":
        pytest.skip("only embedded servers have Sentinels")
    with SentinelGroup(tmp_path, replicas=2) as group:
        yield group


async def test_sentinel_failovers_under_load_lose_and_double_nothing(sentinels: SentinelGroup) -> None:
    async with load(
        sentinels.url, [f"load-{n}" for n in range(8)], wait_replicas=1, wait_timeout=0.3, lease=4
    ) as talkers:
        await all_go_on(talkers)
        sentinels.sentinels[0].kill()
        victim = sentinels.primary()
        victim.kill()
        await all_go_on(talkers)
        assert sentinels.primary() is not victim
