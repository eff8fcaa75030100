"""Turns that are stored compressed and turns that are not, in one session, over real gRPC and real Redis."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from benchmarks.prose import prose

from parley.session.v1 import session_service_pb2, turn_service_pb2
from servicekit.errors import Code
from tests.service.session_svc.replica import Replica, refused, replica, texts

HEADER = struct.Struct(">HBIQI")
COMPRESSED = 2


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


def elements(client: "redis.Redis", session: str = "s1") -> list[bytes]:
    found: Any = client.lrange(f"{{default:{session}}}:turns", 0, -1)
    return list(found)


def compressed(client: "redis.Redis", session: str = "s1") -> list[bool]:
    return [bool(HEADER.unpack_from(element)[1] & COMPRESSED) for element in elements(client, session)]


async def exported(svc: Replica, user: str) -> list[str]:
    request = session_service_pb2.ExportUserRequest(user_id=user)
    return [part.turn.messages[0].content async for part in svc.sessions.ExportUser(request) if part.HasField("turn")]


async def test_switched_on_and_off_again_a_session_goes_on(redis_url: str, client: "redis.Redis") -> None:
    said: list[str] = []
    ids: list[str] = []
    for number, compressing in enumerate([False, True, False, True]):
        async with replica(redis_url, compress_turns=compressing) as svc:
            for turn in (2 * number, 2 * number + 1):
                begun = await svc.begin(user_id="ann")
                assert texts(begun) == said
                assert [one.number for one in begun.window] == list(range(1, len(said) + 1))
                assert [one.id for one in begun.window] == ids
                said.append(prose(turn, 2000))
                assert (await svc.commit(begun, said[-1])).turn_number == len(said)
                ids.append(begun.lease.turn_id)
            assert await svc.said() == await exported(svc, "ann") == said
    assert compressed(client) == [False, False, True, True] * 2


async def test_what_is_not_compressed_is_as_it_always_was(redis_url: str, client: "redis.Redis") -> None:
    """The bytes that the release before reads: the header with no flag set, the turn, its number."""
    async with replica(redis_url, compress_turns=False) as svc:
        begun = await svc.begin()
        await svc.commit(begun, prose(0, 2000))
        [element] = elements(client)
    messages, flags, number, token, _ = HEADER.unpack_from(element)
    assert (messages, flags, number, token) == (2, 0, 1, begun.lease.token)
    assert prose(0, 2000).encode() in element
    assert element.endswith(b"\x10\x01")


@pytest.mark.parametrize("compressing", [True, False])
async def test_a_fork_holds_what_the_source_did(redis_url: str, client: "redis.Redis", compressing: bool) -> None:
    """With it off, a fork has no compressed turn either: nothing writes one."""
    said = [prose(turn, 2000) for turn in range(20)]
    async with replica(redis_url) as svc:
        for text in said:
            await svc.turn(text=text)
    async with replica(redis_url, compress_turns=compressing) as svc:
        fork = session_service_pb2.ForkSessionRequest(session_id="s1", new_session_id="s2")
        await svc.sessions.ForkSession(fork)
        assert await svc.said("s2") == said
        assert texts(await svc.begin("s2")) == said
    assert compressed(client, "s2") == [compressing] * 20


async def test_a_replay_of_a_compressed_turn_is_what_was_stored(redis_url: str, client: "redis.Redis") -> None:
    async with replica(redis_url) as svc:
        request = {"request_id": "r1", "request_digest": b"d"}
        begun = await svc.begin(**request)
        await svc.commit(begun, prose(0, 2000), **request)
        again = await svc.begin(**request)
        assert compressed(client) == [True]
        assert again.replayed_turn.messages[0].content == prose(0, 2000)
        assert (again.replayed_turn.number, again.replayed_turn.id) == (1, begun.lease.turn_id)


async def test_a_damaged_turn_is_named_and_frees_its_lease(redis_url: str, client: "redis.Redis") -> None:
    async with replica(redis_url) as svc:
        for turn in range(3):
            await svc.turn(text=prose(turn, 2000))
        whole = elements(client)[1]
        client.lset("{default:s1}:turns", 1, whole[:-20] + bytes(20))
        with refused("TURN_DAMAGED") as outcome:
            await svc.begin()
        assert (outcome.error.code, outcome.error.metadata) == (Code.DATA_LOSS, {"turn_number": "2"})
        assert prose(1, 2000)[:20] not in str(outcome.error)
        with refused("TURN_DAMAGED"):
            await svc.said()
        # What does not need it goes on: a window that ends behind it, at once, for the lease was given back.
        assert texts(await svc.begin(window_messages=2, turn_id="t9")) == [prose(2, 2000)]


@pytest.mark.parametrize("body", [b"\xff" * 40, b"\x0a\x05\x12\x03\xff\xfe\xfd", b"\x0a\x70short"])
async def test_a_damaged_turn_fails_its_own_call_alone(redis_url: str, client: "redis.Redis", body: bytes) -> None:
    """On the stream that calls share, everybody else is answered; so is a caller of its own."""
    async with replica(redis_url) as svc:
        for session in ("s1", "s2"):
            begun = await svc.begin(session, request_id="r1", request_digest=b"d")
            await svc.commit(begun, request_id="r1", request_digest=b"d")
        client.lset("{default:s1}:turns", 0, elements(client)[0][: HEADER.size] + body)
        stream = svc.turns.Turns()
        calls = [
            turn_service_pb2.TurnCall(id=n, begin=svc.begin_request("s1" if n == 1 else f"t{n}")) for n in range(20)
        ]
        await stream.write(turn_service_pb2.TurnsRequest(calls=calls))
        failed: dict[int, bool] = {}
        while len(failed) < len(calls):
            message = await stream.read()
            failed |= {result.id: bool(result.failure) for result in message.results}
        assert [call_id for call_id, refusal in failed.items() if refusal] == [1]
        stream.cancel()
        with refused("TURN_DAMAGED"):
            await svc.said("s1")
        with refused("TURN_DAMAGED"):
            await svc.begin("s1", request_id="r1", request_digest=b"d")


async def test_turns_that_are_gone_from_beside_their_session_are_damage(redis_url: str, client: "redis.Redis") -> None:
    """An evicting Redis takes single keys: a session without its history is no session with a short one."""
    async with replica(redis_url) as svc:
        begun = await svc.begin(request_id="r1", request_digest=b"d")
        await svc.commit(begun, request_id="r1", request_digest=b"d")
        running = await svc.begin()
        client.delete("{default:s1}:turns")
        with refused("TURN_DAMAGED"):
            await svc.commit(running)
        assert not client.exists("{default:s1}:turns")
        await svc.abort(running)
        for fields in ({}, {"request_id": "r1", "request_digest": b"d"}):
            with refused("TURN_DAMAGED"):
                await svc.begin(**fields)
        with refused("TURN_DAMAGED"):
            await svc.said()
        with refused("TURN_DAMAGED"):
            await svc.sessions.ForkSession(session_service_pb2.ForkSessionRequest(session_id="s1", new_session_id="s2"))


async def test_a_commit_that_fails_has_cut_no_turn(redis_url: str, client: "redis.Redis") -> None:
    """A script that fails undoes nothing: what can fail comes before the turns that it replaces go."""
    async with replica(redis_url) as svc:
        for text in ("one", "two", "three"):
            await svc.turn(text=text)
        running = await svc.begin()
        client.set("{default:s1}:replay", "of a wrong type")
        with refused("TURN_DAMAGED"):
            await svc.commit(running, "new", cut_after_turn=1)
        assert await svc.said() == ["one", "two", "three"]
        client.delete("{default:s1}:replay")
        assert (await svc.commit(running, "new", cut_after_turn=1)).turn_number == 2
        assert await svc.said() == ["one", "new"]
