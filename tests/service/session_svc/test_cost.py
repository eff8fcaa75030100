"""The work that a turn makes in Redis does not grow with the length of its session: counted, not timed."""

import random
import secrets
import struct
import uuid
from typing import Any

import pytest
import redis
from benchmarks.prose import prose

from parley.session.v1.message_pb2 import FINISH_REASON_STOP, ROLE_ASSISTANT, ROLE_USER, Message, Turn
from session_svc.model.session import SessionBounds, SessionKey
from tests.contract.session_svc.bench import Bench, redis_bench

WINDOW = 20
SHORT, LONG = 10, 10_000
PROBES = 20
HEADER = struct.Struct(">HBIQI")
"""What session_svc puts before each stored turn (scripts/prelude.lua)."""
COMPRESSED = 2


def turn_bytes(number: int) -> bytes:
    """A turn whose two messages have 300 bytes of the benchmarks' prose each, with all that a gateway stores."""
    said = [
        Message(role=ROLE_USER, content=prose(2 * number, 300)),
        Message(role=ROLE_ASSISTANT, content=prose(2 * number + 1, 300)),
    ]
    turn = Turn(id=secrets.token_urlsafe(12), messages=said, agent_revision=1, finish_reason=FINISH_REASON_STOP)
    turn.begin_time.GetCurrentTime()
    turn.usage.prompt_tokens, turn.usage.completion_tokens, turn.model = 700, 70, "a-common-model"
    return turn.SerializeToString()


TURN_BYTES = turn_bytes(0)
NOT_OF_A_TURN = ("cmdstat_info", "cmdstat_config|resetstat", "cmdstat_ping")


async def work_of_a_turn(bench: Bench, client: "redis.Redis", session: str) -> dict[str, Any]:
    """Returns commands by name, and bytes sent by Redis, for one BeginTurn and CommitTurn."""
    client.config_resetstat()
    begun = await bench.begun(uuid.uuid4().hex, session, window=WINDOW)
    await bench.commit(begun, turn=TURN_BYTES)
    stats: dict[str, Any] = client.info("commandstats")
    sent: dict[str, Any] = client.info("stats")
    turns = {name: values for name, values in stats.items() if name not in NOT_OF_A_TURN}
    return {
        "calls": {name: values["calls"] for name, values in turns.items()},
        "usec": sum(values["usec"] for values in turns.values()),
        "bytes": sent["total_net_output_bytes"],
        "window": len(begun.window),
    }


def lengthen(client: "redis.Redis", session: str, turns: int) -> None:
    """Puts copies of a session's turns before them, as if it had had `turns` turns; under older fencing tokens."""
    key = f"{{default:{session}}}"
    own: list[bytes] = client.lrange(f"{key}:turns", 0, -1)  # type: ignore[assignment]
    added = turns - len(own)
    oldest = HEADER.unpack_from(own[0])[3]
    whole = []
    for number in range(1, turns + 1):
        element = own[max(number - added - 1, 0)]
        messages, flags, _, token, id_sum = HEADER.unpack_from(element)
        token = token if number > added else oldest - added + number - 1
        assert flags == COMPRESSED  # so that the number stands in the header only
        whole.append(HEADER.pack(messages, flags, number, token, id_sum) + element[HEADER.size :])
    with client.pipeline() as pipeline:
        pipeline.delete(f"{key}:turns")
        for start in range(0, turns, 1000):
            pipeline.rpush(f"{key}:turns", *whole[start : start + 1000])
        pipeline.hset(f"{key}:meta", mapping={"last": turns, "messages": 2 * turns})
        pipeline.execute()


async def test_a_turn_of_a_long_session_costs_what_one_of_a_short_session_does(redis_url: str) -> None:
    """10,000 turns against 10: the same commands, the same bytes, and within noise the same time in the server."""
    # One more than is measured, or the cap drops a turn with every turn.
    limits = SessionBounds(turns_per_session=LONG + PROBES + 1)
    async with redis_bench(redis_url, limits) as bench:
        with redis.Redis.from_url(redis_url) as client:
            for session in ("short", "long"):
                for n in range(SHORT):
                    await bench.commit(await bench.begun(f"t{n:031}", session, window=0), turn=TURN_BYTES)
            lengthen(client, "long", LONG)
            works: dict[str, list[dict[str, Any]]] = {"short": [], "long": []}
            for _ in range(PROBES):
                for session, measured in works.items():
                    measured.append(await work_of_a_turn(bench, client, session))
            kept = await bench.sessions.get(SessionKey("default", "long"))
    # Gateways of this process's other tests may look into the same server, so the least is what a turn takes.
    short, long = (min(works[session], key=lambda work: sum(work["calls"].values())) for session in ("short", "long"))
    assert kept.turn_count == LONG + PROBES
    assert short["window"] == long["window"] == WINDOW // 2
    assert long["calls"] == short["calls"]
    assert abs(long["bytes"] - short["bytes"]) < 200, "only numbers have more digits"
    least = {session: min(work["usec"] for work in measured) for session, measured in works.items()}
    assert least["long"] < 1.5 * least["short"] + 20, f"microseconds in the server: {least}"


@pytest.mark.parametrize(("compressing", "most"), [(True, 6.7), (False, 7.4)])
async def test_an_idle_session_is_small(redis_url: str, compressing: bool, most: float) -> None:
    """20 messages of 300 bytes, in KB without the indexes, which take some 0.28 more."""
    async with redis_bench(redis_url, SessionBounds(), compressing=compressing) as bench:
        with redis.Redis.from_url(redis_url) as client:
            for n in range(10):
                await bench.commit(await bench.begun(secrets.token_urlsafe(12), user="ann"), turn=turn_bytes(n))
            used = sum(client.memory_usage(key, samples=0) or 0 for key in client.keys("{*"))
    assert most - 0.5 < used / 1024 < most


@pytest.mark.parametrize("large", [random.Random(1).randbytes(200_000), b"x" * 200_000], ids=["random", "even"])
async def test_a_session_of_large_turns_is_read_little_further_than_its_window(redis_url: str, large: bytes) -> None:
    """Also where it is stored in a hundredth of its size: the window counts what is sent."""
    async with redis_bench(redis_url, SessionBounds(window_bytes=1_000_000)) as bench:
        with redis.Redis.from_url(redis_url) as client:
            for n in range(40):
                await bench.commit(await bench.begun(f"t{n}"), turn=large)
            work = await work_of_a_turn(bench, client, "s1")
    assert work["window"] == 4
    assert work["bytes"] < 1_500_000


async def test_a_window_of_short_turns_is_filled_by_further_reads(redis_url: str) -> None:
    async with redis_bench(redis_url, SessionBounds()) as bench:
        for n in range(150):
            await bench.commit(await bench.begun(f"t{n}", window=0), messages=1)
        assert len((await bench.begun("last", window=120)).window) == 120
