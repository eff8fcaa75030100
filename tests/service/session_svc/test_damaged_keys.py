"""Keys of Redis that something else has written: what needs them fails or is made anew, and everything else goes on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry

from parley.session.v1 import session_service_pb2 as pb
from session_svc.edge.turn_servicer import TurnServicer, make_streams
from session_svc.metrics import Metrics
from session_svc.redis_client.link import RedisUnavailable
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.wiring import RedisHealth, open_redis
from tests.servers.stores import Choice
from tests.service.session_svc.replica import UID, Replica, refused, replica


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


def spoil(client: "redis.Redis", key: str) -> None:
    """Puts a value of a type there that the key never has."""
    kind = client.type(key)
    client.delete(key)
    if kind in (b"none", b"string"):
        client.rpush(key, "x")
    else:
        client.set(key, "x")


async def listed(svc: Replica, **fields: Any) -> list[str]:
    page = await svc.sessions.ListSessions(pb.ListSessionsRequest(**fields))
    return sorted(session.id for session in page.sessions)


INDEXES = ["idx:project:{default}", "idx:agent:{default:hello}", "idx:user:{default:ann}"]


@pytest.mark.parametrize("key", [*INDEXES, "{default:s1}:queue"])
async def test_what_comes_again_by_itself_is_put_aside(svc: Replica, client: "redis.Redis", key: str) -> None:
    await svc.turn("s1", user_id="ann")
    spoil(client, key)
    await svc.turn("s2", user_id="ann")
    await svc.turn("s1", user_id="ann")
    for fields in ({}, {"agent_id": "hello"}, {"user_id": "ann"}):
        assert await listed(svc, **fields) == ["s1", "s2"]
    asides: Any = client.keys("damaged:*")
    kind = key.rpartition(":")[2] if key.startswith("{") else key.partition(":")[0].replace("idx", "index")
    count = svc.registry.get_sample_value("parley_redis_damaged_keys_total", {"kind": kind})
    assert (len(asides), count) == ((0, None) if client.type(key) == b"none" and not asides else (1, 1))
    assert all(client.pttl(aside) > 0 for aside in asides)


@pytest.mark.parametrize("part", ["begun", "held"])
async def test_a_limit_begins_anew(svc: Replica, client: "redis.Redis", part: str) -> None:
    limit = {"subject": "key:k1", "requests_per_minute": 2, "concurrent_turns": 2}
    await svc.turn("s1", limits=[limit])
    spoil(client, f"{{limit:default:key:k1}}:{part}")
    await svc.turn("s1", limits=[limit])
    assert len(await svc.said("s1")) == 2


@pytest.mark.parametrize("part", ["meta", "turns", "replay"])
async def test_a_damaged_session_fails_alone_and_can_be_deleted(svc: Replica, client: "redis.Redis", part: str) -> None:
    request = {"request_id": "r1", "request_digest": b"d", "user_id": "ann"}
    for session in ("s1", "s2"):
        begun = await svc.begin(session, **request)
        await svc.commit(begun, request_id="r1", request_digest=b"d")
    spoil(client, f"{{default:s1}}:{part}")
    for _ in range(2):
        with refused("TURN_DAMAGED"):
            await svc.begin("s1", user_id="ann", request_id="r2", request_digest=b"d")
    await svc.turn("s2", user_id="ann")
    assert "s2" in await listed(svc)
    assert svc.registry.get_sample_value("parley_redis_damaged_keys_total", {"kind": "session"}) > 0
    await svc.sessions.DeleteSession(pb.DeleteSessionRequest(id="s1"))
    await svc.turn("s1", user_id="ann")
    assert await svc.said("s1") == ["hi"]


UNREADABLE = [
    *(("expire", "x"), ("created", "x"), ("last", "x"), ("metadata", "{"), ("metadata", '["a"]')),
    *((field, "9" * 30) for field in ("created", "activity", "idle", "cap", "expire", "messages", "prompt", "parts")),
    *(("created", "253402300800000"), ("messages", "9223372036854775808"), ("revision", "-1"), ("first", "9")),
    *(("metadata", '{"a": 1}'), ("metadata", r'{"a": "\ud800"}'), ("metadata", "[" * 100_000), ("calls", "[1]")),
]


async def test_a_field_that_is_unreadable_fails_its_session_alone(svc: Replica, client: "redis.Redis") -> None:
    await svc.turn("fine", user_id="ann")
    for number, (field, value) in enumerate(UNREADABLE):
        await svc.turn(f"s{number}", user_id="ann")
        client.hset(f"{{default:s{number}}}:meta", field, value)
        with refused("TURN_DAMAGED"):
            await svc.sessions.GetSession(pb.GetSessionRequest(id=f"s{number}"))
    assert await listed(svc) == await listed(svc, user_id="ann") == ["fine"]


async def test_the_largest_numbers_and_times_can_be_told(svc: Replica, client: "redis.Redis") -> None:
    await svc.turn("s1")
    largest = dict.fromkeys(("prompt", "completion", "cached", "reasoning", "revision", "messages"), 2**63 - 1)
    client.hset("{default:s1}:meta", mapping=largest | {"idle": 253402300799999})
    assert await listed(svc) == ["s1"]


async def test_an_erased_user_has_no_damaged_sessions_left(svc: Replica, client: "redis.Redis") -> None:
    for session in ("s1", "s2"):
        await svc.turn(session, user_id="ann")
    spoil(client, "{default:s1}:meta")
    await svc.sessions.EraseUser(pb.EraseUserRequest(user_id="ann"))
    assert client.keys("{default:*") == []


async def test_a_fence_of_a_wrong_type_refuses_its_agent_alone(svc: Replica, client: "redis.Redis") -> None:
    client.rpush(f"fence:{{default:{UID}}}", "x")
    with refused("TURN_DAMAGED"):
        await svc.begin("s1")
    await svc.turn("s2", agent_uid=UID[:-1] + "2")


async def test_members_and_cursors_that_nobody_wrote_are_passed_over(redis_url: str, client: "redis.Redis") -> None:
    client.zadd("agents", {"x": 1, b"\xff": 2})
    client.zadd("idx:project:{default}", {b"\xff\xfe": "inf", "gone": 1})
    client.set("follower:cursor", b"\xff")
    async with replica(redis_url) as svc:
        await svc.turn()
        assert await listed(svc) == ["s1"]


async def test_a_redis_that_may_evict_or_takes_no_writes_is_told(server_choice: Choice, tmp_path: Path) -> None:
    server = server_choice.own_redis(tmp_path)
    server.start()
    try:
        url = server.database_url(0)
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            async with open_redis(url, 1) as ([link], _):
                streams = make_streams(TurnServicer(None, None, None, None, None, None))  # type: ignore[arg-type]
                health = RedisHealth(link, Metrics(CollectorRegistry()), streams)
                assert await health.probe()
                assert "allkeys-lru" in str((await health.readiness())["redis policy"])
                client.config_set("maxmemory-policy", "noeviction")
                client.config_set("maxmemory", 1)
                for _ in range(10):
                    await health.probe()
                told = await health.readiness()
                assert told["redis"] is True
                assert "OOM" in str(told["redis writes"])
                client.config_set("maxmemory", 0)
                for forbid, allow in (("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
                                      ("ACL SETUSER default -set", "ACL SETUSER default +set"),
                                      ("ACL SETUSER default -hset", "ACL SETUSER default +hset"),
                                      ("ACL SETUSER default -time", "ACL SETUSER default +time"),
                                      ("ACL SETUSER default -evalsha", "ACL SETUSER default +evalsha"),
                                      ("ACL SETUSER default -eval", "ACL SETUSER default +eval")):  # fmt: skip
                    for command, writes in ((forbid, False), (allow, True)):
                        client.execute_command(*command.split())
                        for _ in range(10):
                            await health.probe()
                        assert ((await health.readiness())["redis writes"] is True) is writes, command
                client.execute_command("ACL SETUSER default -hset")
                with pytest.raises(RedisUnavailable):  # as any right that is missing
                    await RedisScripts(link).run(("EVAL", "return redis.call('HSET', KEYS[1], 'a', 'b')", 1, "x"))
                for command in (("RENAMED", "x"), ("EVAL", "return redis.call('RENAMED', KEYS[1])", 1, "x")):
                    with pytest.raises(RedisUnavailable):
                        await RedisScripts(link).run(command)
                server.kill()
                async with asyncio.timeout(60):
                    while "onnect" not in str((await health.readiness())["redis"]):
                        await health.probe()
                        await asyncio.sleep(0.05)
    finally:
        server.remove()
