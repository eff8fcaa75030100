"""What is acknowledged stays while primaries are killed, frozen and replaced, and turns go on: cluster and Sentinel."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.servers.redis_nodes import Node, RedisCluster, SentinelGroup, until
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
            others = [talker for talker in talkers if breakable.owner(meta(talker.session)) is not victim]
            victim.kill()
            await all_go_on(others)
            await asyncio.to_thread(replace, breakable, victim, meta(sessions[0]))
            await all_go_on(talkers)
            await asyncio.to_thread(breakable.mend)
        [follower] = breakable.replicas_of(breakable.owner(meta(sessions[0])))
        follower.client.cluster("FAILOVER")  # by order, with the old primary alive: it tells everybody to go elsewhere
        await asyncio.to_thread(until, lambda: follower.role == "master", "the replica took over")
        await all_go_on(talkers)


def replace(cluster: RedisCluster, victim: Node, key: str) -> None:
    """Starts a killed primary again once it is none, for it comes back empty, and would empty its replica.

    Until then there is one copy alone, and nothing is acknowledged.
    """
    until(lambda: cluster.owner(key) is not victim, "its replica took over")
    victim.start()


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
        for _ in range(16):  # longer than the health check waits
            assert await svc.serves()
            await asyncio.sleep(0.1)
        async with asyncio.timeout(180):
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
        async with asyncio.timeout(180):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await svc.turn(new, agent_uid=uid)
                    break
        assert await svc.said(there) == ["before", "meanwhile"]
        assert follower.client.zcard(indexed) == 2  # other nodes may not know yet that it took over


@pytest.fixture
def sentinels(server_choice: Choice, tmp_path: Path) -> Iterator[SentinelGroup]:
    """A primary, its replica and three Sentinels, for the test to take apart."""
    if server_choice.kind != "embedded":
        pytest.skip("only embedded servers have Sentinels")
    with SentinelGroup(tmp_path) as group:
        yield group


# On a loaded machine a socket is now and then left to the garbage collector, whose it is has not been found.
@pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning")
async def test_sentinel_failovers_under_load_lose_and_double_nothing(sentinels: SentinelGroup) -> None:
    async with load(
        sentinels.url, [f"load-{n}" for n in range(8)], wait_replicas=1, wait_timeout=0.3, lease=4
    ) as talkers:
        await all_go_on(talkers)
        first = sentinels.primary()
        # By order, with the old primary alive: it acknowledges nothing once its replica has left it.
        sentinels.sentinels[1].client.execute_command("SENTINEL", "FAILOVER", sentinels.name)
        await asyncio.to_thread(until, lambda: sentinels.primary() is not first, "another is the primary")
        await all_go_on(talkers)
        second = sentinels.primary()
        sentinels.sentinels[0].kill()
        second.kill()
        await asyncio.to_thread(until, lambda: sentinels.primary() is first, "the first is the primary again")
        await asyncio.to_thread(second.start)  # with one copy alone nothing is acknowledged
        second.client.replicaof(*first.address.split(":"))
        await all_go_on(talkers)
