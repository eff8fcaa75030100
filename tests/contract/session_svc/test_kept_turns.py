"""How long what others need to go on with a turn is kept: for as long as somebody may."""

from collections.abc import AsyncIterator

import pytest
import redis

from session_svc.model.errors import LeaseLost
from session_svc.model.journal import NewEvents
from session_svc.model.turn import Lease
from tests.contract.session_svc.bench import Bench, redis_bench
from tests.contract.session_svc.claimed_turns import (
    BOUNDS,
    STORES,
    begun,
    claimed,
    claims,
    lose_gateway,
    open_bench,
)

BRIEF = 40_000
"""An idle TTL that ends long before a turn that is taken over late."""


@pytest.fixture(params=STORES)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with open_bench(request) as made:
        yield made


async def test_a_turn_that_is_taken_over_late_outlives_its_sessions_idle_time(bench: Bench) -> None:
    await bench.commit(await bench.begun("t0", idle_ms=BRIEF), idle_ms=BRIEF)
    turn = await begun(bench, idle_ms=BRIEF)
    await claims(bench).hand_over(turn.lease, queued=False)
    await bench.pass_time(BOUNDS.pickup.wait_ms - 15_000)
    await claimed(bench)
    # Beyond what was kept for it before: its new gateway is lost, too.
    await bench.pass_time(BOUNDS.lease_ms + 15_000)
    found = await claimed(bench)
    assert (found.attempt, found.request) == (3, b"request of t1")
    again = await bench.begun("t1", idle_ms=BRIEF)
    assert len(again.window) == 1
    await bench.commit(again, idle_ms=BRIEF)


@pytest.mark.parametrize("user", ["", "eve"])
@pytest.mark.parametrize("stored", [False, True])
async def test_a_late_begin_of_another_user_is_not_told_of_a_turn_that_is_over(
    bench: Bench, user: str, stored: bool
) -> None:
    """Another user's session is not there for it, whichever turn's id it brings."""
    turn = await bench.begun("t1", user="ann")
    await bench.journals.append(NewEvents(turn.lease, 1, (b"begun",)))
    await bench.turns.abort(turn.lease, b"end")
    if stored:
        with pytest.raises(LeaseLost):
            await bench.begun("t1", user="ann")
    made = await bench.begun("t1", user=user)
    assert made.created


@pytest.mark.servers
@pytest.mark.parametrize("first", [False, True], ids=["a later turn", "the first turn"])
async def test_a_journal_is_kept_as_long_as_its_session_while_its_turn_runs_and_not_much_longer(
    redis_url: str, first: bool
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        async with redis_bench(redis_url, BOUNDS) as bench:

            def check(after: str) -> None:
                kept = client.pexpiretime("{default:s1}:journal")
                assert kept == client.pexpiretime("{default:s1}:meta") > 0, after

            if not first:
                await bench.turn("t0", idle_ms=BRIEF)
            turn = await begun(bench, idle_ms=BRIEF)
            check("append")
            await bench.pass_time(1000)
            await bench.turns.renew(turn.lease)
            check("renew")
            await lose_gateway(bench)
            await bench.turns.renew(turn.lease)
            check("a late renewal")
            await lose_gateway(bench)
            again = await bench.begun("t1", idle_ms=BRIEF)
            check("a begin of the holder's own")
            await claims(bench).hand_over(again.lease, queued=False)
            check("hand over")
            await bench.pass_time(1000)
            lease: Lease = (await claimed(bench)).lease
            check("claim")
            await bench.pass_time(1000)
            await bench.journals.append(NewEvents(lease, 1, (b"resumed",)))
            check("append of the next gateway")
            last = await bench.begun("t1", idle_ms=10 * BOUNDS.journal.keep_ms)
            await bench.commit(last, idle_ms=10 * BOUNDS.journal.keep_ms, end_event=b"end")
            left = client.pttl("{default:s1}:journal")
            assert 0 < left <= BOUNDS.journal.keep_ms < client.pttl("{default:s1}:meta")
