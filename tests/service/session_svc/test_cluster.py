"""session_svc on a Redis cluster: slots that move, nodes that go, and what must stay in order over several nodes."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import pytest
from redis.crc import key_slot

from session_svc.model.errors import AgentDeleted
from session_svc.model.session import AgentIncarnation, Purge, SessionBounds, SessionKey, SessionQuery
from session_svc.model.turn import BeginTurn, Waiting
from session_svc.redis_client.cluster import ClusterLink, Topology
from session_svc.redis_client.link import Command, Reply
from session_svc.redis_client.url import Dial, parse_redis_url
from session_svc.redis_store.indexes import IndexAdditions
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.turns import RedisTurns
from session_svc.redis_store.wakeups import RedisWakes
from tests.contract.session_svc.bench import redis_bench
from tests.servers.redis_nodes import PASSWORD, Node, RedisCluster
from tests.service.session_svc.replica import UID
from tests.service.session_svc.talkers import all_go_on, load

META = "{{default:{}}}:meta"


def on_each(cluster: RedisCluster) -> dict[str, str]:
    """Returns a session id of each primary, by the node's name."""
    found: dict[str, str] = {}
    for number in itertools.count():
        found.setdefault(cluster.owner(META.format(f"s{number}")).name, f"s{number}")
        if len(found) == len(cluster.primaries):
            return found
    raise AssertionError


class Interrupted(ClusterLink):
    """Lets something happen right before the stage that a command of this name begins."""

    name = ""
    happens: Any

    async def send(self, *commands: Command) -> list[Reply]:
        if self.name and commands[0][0] == self.name:
            self.name = ""
            await self.happens()
        return await super().send(*commands)


AnyLink = TypeVar("AnyLink", bound=ClusterLink)


@contextlib.asynccontextmanager
async def linked(url: str, kind: type[AnyLink]) -> AsyncIterator[tuple[AnyLink, Dial]]:
    seeds = parse_redis_url(url)
    assert isinstance(seeds, list)
    async with (
        contextlib.aclosing(Topology(seeds).start()) as topology,
        contextlib.aclosing(kind(topology).start()) as link,
    ):
        yield link, topology.dial


@contextlib.asynccontextmanager
async def interrupted(url: str) -> AsyncIterator[tuple[Interrupted, RedisTurns]]:
    async with linked(url, Interrupted) as (link, dial), RedisWakes(dial).open() as wakes:
        scripts = RedisScripts(link)
        yield link, RedisTurns(scripts, wakes, SessionBounds(), IndexAdditions())


def begin(turn_id: str = "t1", session: str = "s1") -> BeginTurn:
    return BeginTurn(SessionKey("default", session), "hello", UID, turn_id)


@pytest.mark.parametrize("before", ["EVALSHA", "GET"])
async def test_a_fence_that_is_set_during_a_begin_leaves_no_session(cluster_url: str, before: str) -> None:
    life = AgentIncarnation("default", "hello", UID)
    async with interrupted(cluster_url) as (link, turns), redis_bench(cluster_url) as bench:

        async def delete_the_agent() -> None:
            await bench.agents.fence(life)
            await bench.sessions.purge(Purge("default", "hello", UID))

        link.name, link.happens = before, delete_the_agent
        with pytest.raises(AgentDeleted):
            await turns.begin(begin(), turns.new_waiter_id(), 0)
        assert not (await bench.sessions.list_sessions(SessionQuery("default"), 10)).sessions


async def test_a_session_is_in_its_indexes_before_it_exists(cluster_url: str, redis_cluster: RedisCluster) -> None:
    async with interrupted(cluster_url) as (link, turns):
        seen: list[tuple[int, bool]] = []

        async def look() -> None:
            indexes = ["idx:project:{default}", "idx:agent:{default:hello}"]
            known = sum(redis_cluster.owner(key).client.zcard(key) for key in indexes)
            seen.append((known, bool(redis_cluster.owner(META.format("s1")).client.exists(META.format("s1")))))

        link.name, link.happens = "EVALSHA", look
        await turns.begin(begin(), turns.new_waiter_id(), 0)
        assert seen == [(2, False)]


async def test_whoever_waits_is_woken_from_every_node(cluster_url: str, redis_cluster: RedisCluster) -> None:
    async with redis_bench(cluster_url) as bench:
        for session in on_each(redis_cluster).values():
            holder = await bench.begun("t1", session)
            waiter_id = bench.turns.new_waiter_id()
            turn = begin("t2", session)
            assert isinstance(await bench.turns.begin(turn, waiter_id, 60_000), Waiting)
            await bench.commit(holder)
            async with asyncio.timeout(60):
                await bench.turns.wait_for_wakeup(waiter_id, 600)


async def test_scripts_are_taught_node_by_node(cluster_url: str, redis_cluster: RedisCluster) -> None:
    async with redis_bench(cluster_url) as bench:
        for node in redis_cluster.current_primaries():
            for session in on_each(redis_cluster).values():
                node.client.script_flush()
                await bench.turn(node.name, session)


class Migration:
    """Moves one slot, key by key, as `valkey-cli --cluster reshard` does."""

    def __init__(self, cluster: RedisCluster, key: str) -> None:
        self.slot = key_slot(key.encode())
        self.source = cluster.owner(key)
        self.target = next(node for node in cluster.current_primaries() if node is not self.source)
        self._everyone = cluster.current_primaries()

    def begin(self) -> None:
        self.target.client.cluster("SETSLOT", self.slot, "IMPORTING", self._id(self.source))
        self.source.client.cluster("SETSLOT", self.slot, "MIGRATING", self._id(self.target))

    def move(self) -> None:
        while keys := self.source.client.cluster("GETKEYSINSLOT", self.slot, 1):
            host, port = self.target.address.split(":")
            moved = ("MIGRATE", host, port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *keys)
            self.source.client.execute_command(*moved)

    def end(self) -> None:
        for node in [self.target, self.source, *self._everyone]:
            node.client.cluster("SETSLOT", self.slot, "NODE", self._id(self.target))

    def _id(self, node: Node) -> str:
        return str(node.client.cluster("MYID").decode())


async def test_a_slot_that_moves_is_followed(breakable: RedisCluster) -> None:
    async with redis_bench(breakable.url) as bench:
        for n in range(1, 4):
            await bench.turn(f"t{n}")
        migration = Migration(breakable, META.format("s1"))
        migration.begin()
        migration.move()
        moving = asyncio.create_task(bench.turn("t4"))  # some of its keys never existed: nobody can tell where they are
        await asyncio.sleep(0.1)
        migration.end()
        assert (await moving).turn_number == 4
        assert len((await bench.begun("t5")).window) == 4
        assert breakable.owner(META.format("s1")) is migration.target


async def test_what_is_asked_for_at_the_new_place_is_found_there(breakable: RedisCluster) -> None:
    async with linked(breakable.url, ClusterLink) as (link, _):
        key = "{default:s1}:plain"
        await link.send(("SET", key, "1"))
        migration = Migration(breakable, key)
        migration.begin()
        migration.move()
        replies = await link.send(("GET", key), ("GET", "{elsewhere}"), ("INCR", key), ("GET", key))
        assert replies == [b"1", None, 2, b"2"]
        migration.end()
        assert await link.send(("GET", key)) == [b"2"]


async def test_a_slot_that_moves_under_load_loses_and_doubles_nothing(breakable: RedisCluster) -> None:
    sessions = [f"load-{n}" for n in range(6)]
    async with load(breakable.url, sessions, lease=4) as talkers:
        await all_go_on(talkers)
        for session in sessions[:3]:
            migration = Migration(breakable, META.format(session))
            for step in (migration.begin, migration.move, migration.end):
                await asyncio.to_thread(step)
            assert breakable.owner(META.format(session)) is migration.target
        await all_go_on(talkers)
