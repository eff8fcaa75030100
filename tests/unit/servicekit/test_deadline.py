"""`Deadline` means what `asyncio.timeout` means: every test holds for both."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from servicekit.deadline import Deadline

Bound = Callable[[float | None], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def deadline(seconds: float | None) -> AsyncIterator[Deadline]:
    with Deadline(seconds) as scope:
        yield scope


pytestmark = pytest.mark.parametrize("bound", [deadline, asyncio.timeout])


async def test_a_block_that_takes_too_long_ends_with_a_timeout(bound: Bound) -> None:
    with pytest.raises(TimeoutError):
        async with bound(0.01) as scope:
            await asyncio.sleep(5)
    assert scope.expired()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_block_that_is_quick_is_left_alone(bound: Bound) -> None:
    async with bound(0.02) as scope:
        pass
    await asyncio.sleep(0.04)
    assert not scope.expired()


async def test_a_time_that_is_over_already_ends_the_block_at_its_first_wait(bound: Bound) -> None:
    for seconds in (0.0, -1.0):
        with pytest.raises(TimeoutError):
            async with bound(seconds):
                await asyncio.sleep(5)


async def test_a_cancellation_by_somebody_else_stays_one(bound: Bound) -> None:
    async def block() -> None:
        async with bound(0.01):
            try:
                await asyncio.sleep(5)
            finally:
                task.cancel()

    task = asyncio.ensure_future(block())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_comes_before_its_timeout(bound: Bound) -> None:
    with pytest.raises(KeyError):
        async with bound(0.01):
            try:
                await asyncio.sleep(5)
            finally:
                raise KeyError


async def test_a_cancellation_that_the_block_swallows_does_not_stay(bound: Bound) -> None:
    async with bound(0.01) as scope:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(5)
    assert scope.expired()
    await asyncio.sleep(0)


async def test_the_inner_of_two_bounds_ends_its_own_block_only(bound: Bound) -> None:
    async with bound(5):
        with pytest.raises(TimeoutError):
            async with bound(0.01):
                await asyncio.sleep(1)
        await asyncio.sleep(0)


async def test_the_end_can_be_moved(bound: Bound) -> None:
    clock = asyncio.get_running_loop().time
    async with bound(0.01) as scope:
        scope.reschedule(None)
        await asyncio.sleep(0.03)
        scope.reschedule(clock() + 5)
        scope.reschedule(clock() + 0.01)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)
    assert scope.expired()
    with pytest.raises(TimeoutError):
        async with bound(None) as scope:
            scope.reschedule(clock() - 1)
            await asyncio.sleep(1)
