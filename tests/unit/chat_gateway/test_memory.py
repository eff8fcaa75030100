"""What large requests may have of memory together."""

import asyncio

import pytest

from chat_gateway.memory import MemoryBudget
from chat_gateway.model.errors import TurnQueueFull


async def taking(budget: MemoryBudget, size: int) -> "asyncio.Task[int]":
    task = asyncio.create_task(budget.take(size))
    await asyncio.sleep(0)
    return task


async def test_who_finds_too_few_waits_first_come_first_served() -> None:
    budget = MemoryBudget(10)
    assert await budget.take(6) == 6
    large, small = await taking(budget, 5), await taking(budget, 1)
    assert not large.done()
    assert not small.done(), "it does not overtake"
    budget.release(6)
    assert [await large, await small] == [5, 1]
    assert budget.used == 6


async def test_what_is_larger_than_all_takes_all() -> None:
    budget = MemoryBudget(10)
    async with budget.held(100):
        assert budget.used == 10
    assert budget.used == 0


async def test_a_wait_has_a_bound_and_leaves_nothing_behind() -> None:
    budget = MemoryBudget(10, patience=0.01)
    await budget.take(6)
    with pytest.raises(TurnQueueFull) as caught:
        await budget.take(5)
    assert caught.value.retry_after
    assert caught.value.metadata == {"scope": "large requests", "limit": "10"}
    assert await budget.take(4) == 4


async def test_a_caller_that_leaves_makes_room_for_those_behind_it() -> None:
    budget = MemoryBudget(10)
    await budget.take(6)
    large, small = await taking(budget, 5), await taking(budget, 4)
    large.cancel()
    assert await small == 4
    with pytest.raises(asyncio.CancelledError):
        await large
    waiting = await taking(budget, 10)
    budget.release(10)
    waiting.cancel()  # in the moment in which its turn has come
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.used == 0
