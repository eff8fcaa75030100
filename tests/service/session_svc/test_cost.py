"""The work that a turn makes in Redis does not grow with the length of its session: counted, not timed."""

from typing import Any

import redis

from session_svc.model import Limits
from tests.contract.session_svc.bench import Bench, redis_bench

WINDOW = 20
TURN = b"x" * 600


async def work_of_a_turn(bench: Bench, client: "redis.Redis", session: str) -> dict[str, Any]:
    """Returns commands by name, and bytes sent by Redis, for one BeginTurn and CommitTurn."""
    client.config_resetstat()
    begun = await bench.begun("probe", session, window=WINDOW)
    await bench.commit(begun, turn=TURN)
    stats: dict[str, Any] = client.info("commandstats")
    sent: dict[str, Any] = client.info("stats")
    calls = {
        name: values["calls"]
        for name, values in stats.items()
        if name not in ("cmdstat_info", "cmdstat_config|resetstat", "cmdstat_ping")
    }
    return {"calls": calls, "bytes": sent["total_net_output_bytes"], "window": len(begun.window)}


async def test_a_turn_of_a_long_session_costs_what_one_of_a_short_session_does(redis_url: str) -> None:
    async with redis_bench(redis_url, Limits()) as bench:
        with redis.Redis.from_url(redis_url) as client:
            for session, turns in (("short", 10), ("long", 5000)):
                for n in range(turns):
                    await bench.commit(await bench.begun(f"t{n}", session, window=0), turn=TURN)
            short = await work_of_a_turn(bench, client, "short")
            long = await work_of_a_turn(bench, client, "long")
    assert short["window"] == long["window"] == WINDOW // 2
    assert short["calls"] == long["calls"]
    assert abs(long["bytes"] - short["bytes"]) < 200, "only numbers have more digits"


async def test_an_idle_session_is_small(redis_url: str) -> None:
    """20 messages of 300 bytes."""
    async with redis_bench(redis_url, Limits()) as bench:
        with redis.Redis.from_url(redis_url) as client:
            for n in range(10):
                await bench.commit(await bench.begun(f"{n:032x}", user="ann"), turn=TURN + b"i" * 110)
            used = sum(client.memory_usage(key, samples=0) or 0 for key in client.keys("{*"))
    assert used < 8.5 * 1024


async def test_a_session_of_large_turns_is_read_little_further_than_its_window(redis_url: str) -> None:
    async with redis_bench(redis_url, Limits(window_bytes=1_000_000)) as bench:
        with redis.Redis.from_url(redis_url) as client:
            for n in range(40):
                await bench.commit(await bench.begun(f"t{n}"), turn=b"x" * 200_000)
            work = await work_of_a_turn(bench, client, "s1")
    assert work["window"] == 4
    assert work["bytes"] < 1_500_000


async def test_a_window_of_short_turns_is_filled_by_further_reads(redis_url: str) -> None:
    async with redis_bench(redis_url, Limits()) as bench:
        for n in range(150):
            await bench.commit(await bench.begun(f"t{n}", window=0), messages=1)
        assert len((await bench.begun("last", window=120)).window) == 120
