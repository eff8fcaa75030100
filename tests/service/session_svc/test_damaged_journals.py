"""What running and background turns keep, gone, of a wrong type, cut short or garbage: named, and others go on."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from parley.session.v1 import turn_event_pb2
from parley.session.v1 import turn_service_pb2 as pb
from tests.service.session_svc.damage import DAMAGES, outcome
from tests.service.session_svc.replica import Replica

JUNK = b"\xff\x00\xfe" * 7
ALLOWED = {"OK", "TURN_DAMAGED", "TURN_NOT_FOUND", "SESSION_NOT_FOUND", "LEASE_LOST", "DEADLINE_EXCEEDED"}


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


async def queued(svc: Replica, session: str) -> pb.TurnLease:
    """A turn with a journal and a push config that waits for a gateway."""
    lease = (await svc.begin(session)).lease
    begun = turn_event_pb2.TurnEvent(begun=turn_event_pb2.TurnBegun(agent_id="hello", request=b"go on"))
    said = turn_event_pb2.TurnEvent(step=1, delta=turn_event_pb2.AnswerDelta(content="a"))
    await svc.turns.AppendTurnEvents(pb.AppendTurnEventsRequest(lease=lease, first_sequence=1, events=[begun, said]))
    config = pb.PushConfig(id="c1", content=b"where")
    await svc.turns.PutPushConfig(
        pb.PutPushConfigRequest(session_id=session, turn_id=lease.turn_id, push_config=config)
    )
    await svc.turns.HandOverTurn(pb.HandOverTurnRequest(lease=lease, queued=True))
    return lease


async def watched(svc: Replica, session: str, turn: str) -> None:
    request = pb.WatchTurnRequest(session_id=session, turn_id=turn, present_only=True)
    async for _ in svc.turns.WatchTurn(request, timeout=20):
        pass


async def claimed(svc: Replica) -> set[str]:
    """The sessions of all turns that wait."""
    found: set[str] = set()
    for _ in range(40):
        answer = await svc.turns.ClaimTurn(pb.ClaimTurnRequest(), timeout=20)
        if not answer.HasField("lease"):
            break
        found.add(answer.lease.session_id)
    return found


async def check_calls(svc: Replica, session: str, turn: str) -> None:
    named: dict[str, Any] = {"session_id": session, "turn_id": turn}
    for call in (
        watched(svc, session, turn),
        svc.turns.GetTurnState(pb.GetTurnStateRequest(**named)),
        svc.turns.ListPushConfigs(pb.ListPushConfigsRequest(**named)),
        svc.turns.PutPushConfig(pb.PutPushConfigRequest(push_config=pb.PushConfig(id="c2", content=b"x"), **named)),
        svc.turns.DeletePushConfig(pb.DeletePushConfigRequest(push_config_id="c1", **named)),
        svc.turns.CancelTurn(pb.CancelTurnRequest(**named), timeout=1),
    ):
        assert await outcome(call) in ALLOWED


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["meta", "journal"])
async def test_a_damaged_turn_is_named_and_the_next_one_is_taken_over(
    svc: Replica, client: "redis.Redis", part: str, damage: str
) -> None:
    hurt = await queued(svc, "s1")
    await queued(svc, "s2")
    DAMAGES[damage](client, f"{{default:s1}}:{part}")
    assert "s2" in await claimed(svc)
    await check_calls(svc, "s1", hurt.turn_id)


def replace(client: "redis.Redis", key: str, entry: bytes, fields: Any) -> None:
    before: Any = client.xrange(key)
    client.delete(key)
    for one, held in before:
        client.xadd(key, fields if one == entry else held, id=one)


def garbage_entry(client: "redis.Redis", key: str) -> None:
    [(entry, fields), *_] = client.xrevrange(key, count=1)  # type: ignore[misc]
    replace(client, key, entry, {**fields, b"e": JUNK})


def strange_entry(client: "redis.Redis", key: str) -> None:
    [(entry, fields), *_] = client.xrevrange(key, count=1)  # type: ignore[misc]
    replace(client, key, entry, {b"t": fields[b"t"], JUNK: JUNK, b"n": b"many"})


FIELDS: dict[str, Callable[["redis.Redis"], Any]] = {
    "an event that is none": lambda client: garbage_entry(client, "{default:s1}:journal"),
    "an entry without an event": lambda client: strange_entry(client, "{default:s1}:journal"),
    "push: garbage": lambda client: client.hset("{default:s1}:meta", "push", JUNK),
    "push: cut": lambda client: client.hset("{default:s1}:meta", "push", b"\xda\xff\xff"),
    "push: no format": lambda client: client.hset("{default:s1}:meta", "push", b"\xc1"),
    "push: a number": lambda client: client.hset("{default:s1}:meta", "push", b"\x07"),
    "push: millions of numbers": lambda client: client.hset("{default:s1}:meta", "push", b"x" * 3_000_000),
    "push: other values": lambda client: client.hset("{default:s1}:meta", "push", b"\x92\x01\x93\x01\xc0\x80"),
    "push: an id that is no text": lambda client: client.hset(
        "{default:s1}:meta", "push", b"\x91\x93\xb6" + client.hget("{default:s1}:meta", "turn") + b"\xa2\xff\xfe\xa1x"
    ),
    "journals: garbage": lambda client: client.hset("{default:s1}:meta", "journals", JUNK),
    "pickup: garbage": lambda client: client.hset("{default:s1}:meta", "pickup", JUNK),
    "watchers: garbage": lambda client: client.hset("{default:s1}:meta", "watchers", JUNK),
    "until: garbage": lambda client: client.hset("{default:s1}:meta", "until", JUNK),
}


@pytest.mark.parametrize("field", FIELDS)
async def test_a_damaged_field_of_a_turn_is_named(svc: Replica, client: "redis.Redis", field: str) -> None:
    hurt = await queued(svc, "s1")
    await queued(svc, "s2")
    FIELDS[field](client)
    await check_calls(svc, "s1", hurt.turn_id)
    assert "s2" in await claimed(svc)


async def test_a_watch_of_an_event_that_is_none_is_told_so(svc: Replica, client: "redis.Redis") -> None:
    hurt = await queued(svc, "s1")
    garbage_entry(client, "{default:s1}:journal")
    assert await outcome(watched(svc, "s1", hurt.turn_id)) == "TURN_DAMAGED"


async def test_what_is_no_turn_in_the_index_of_waiting_turns_is_dropped(svc: Replica, client: "redis.Redis") -> None:
    for member in (JUNK, b"x", b"a|b|c|d", b"||"):
        client.zadd("{turns}:running", {member: 1})
        client.zadd("{turns}:queued", {member: 1})
    await queued(svc, "s2")
    assert await claimed(svc) == {"s2"}
    left = set(client.zrange("{turns}:running", 0, -1))
    assert not left & {JUNK, b"x", b"a|b|c|d", b"||"}, "nobody looks at it again"


@pytest.mark.parametrize("junk", [JUNK, b"nan", b"9" * 30, b"9" * 15])
async def test_counts_of_waiting_turns_that_are_none_keep_nobody_waiting(
    svc: Replica, client: "redis.Redis", junk: bytes
) -> None:
    for session in ("s1", "s2"):
        await queued(svc, session)
    fields: Any = client.hkeys("{turns}:shares")
    client.hset("{turns}:shares", mapping=dict.fromkeys(fields, junk))
    await queued(svc, "s3")
    assert await claimed(svc) == {"s1", "s2", "s3"}
    await queued(svc, "s4")
    assert await claimed(svc) == {"s4"}
