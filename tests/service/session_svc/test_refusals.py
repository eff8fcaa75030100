"""What a refused turn is told: the true reason, and when to ask again."""

import asyncio

import pytest

from tests.service.session_svc.replica import INTERRUPT, REJECT, Replica, refused, replica


@pytest.mark.parametrize("exists", [True, False])
async def test_each_of_many_that_interrupt_one_another_learns_that_it_was_interrupted(
    svc: Replica, exists: bool
) -> None:
    if exists:
        await svc.turn()
    running = [await svc.begin(busy=INTERRUPT) for _ in range(64)]
    for begun in running[:-1]:
        with refused("TURN_INTERRUPTED"):
            await svc.commit(begun)
        with refused("TURN_INTERRUPTED"):
            await svc.renew(begun)
    assert (await svc.commit(running[-1])).turn_number == 1 + exists


async def test_callers_at_once_that_interrupt_one_another_learn_it_too(svc: Replica) -> None:
    async def turn() -> str:
        try:
            await svc.turn(busy=INTERRUPT)
        except Exception as error:
            return str(error)
        return "stored"

    outcomes = await asyncio.gather(*(turn() for _ in range(64)))
    assert len(await svc.said()) == outcomes.count("stored") > 0
    assert not [said for said in outcomes if "LEASE_LOST" in said]


async def test_an_aborted_first_turn_leaves_the_interrupted_their_reason(svc: Replica) -> None:
    running = [await svc.begin(busy=INTERRUPT) for _ in range(8)]
    await svc.abort(running.pop())
    for begun in running:
        with refused("TURN_INTERRUPTED"):
            await svc.commit(begun)


async def test_a_refusal_says_what_turns_of_the_session_take(redis_url: str) -> None:
    async with replica(redis_url, queue_per_session=1) as svc:
        for _ in range(3):
            await svc.turn()
        await svc.begin()
        waiting = asyncio.create_task(svc.begin())
        with refused("SESSION_BUSY") as busy:
            await svc.begin(busy=REJECT)
        async with asyncio.timeout(60):
            while svc.registry.get_sample_value("parley_turns_waiting") != 1:
                await asyncio.sleep(0.01)
        with refused("TURN_QUEUE_FULL") as full:
            await svc.begin()
        waiting.cancel()
        for outcome in (busy, full):
            assert 0 < outcome.error.retry_after < 10, "of turns of milliseconds, and not of a lease"
