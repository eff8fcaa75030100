"""The pauses between attempts: none before the first, growing, bounded, with jitter, and cancellable."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.backoff import Backoff


async def pauses(first: float, longest: float, count: int, reset_at: int = -1) -> list[float]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    attempts = Backoff(first, longest, sleep=sleep)
    for number in range(count + 1):
        await anext(attempts)
        if number == reset_at:
            attempts.reset()
    return slept


@given(
    first=st.floats(0.001, 1),
    growth=st.floats(1, 1000),
    count=st.integers(0, 20),
    reset_at=st.integers(-1, 20),
)
def test_pauses_grow_to_a_bound_and_begin_anew_after_a_reset(
    first: float, growth: float, count: int, reset_at: int
) -> None:
    longest = first * growth
    slept = asyncio.run(pauses(first, longest, count, reset_at))
    assert len(slept) == count
    full = first
    for number, seconds in enumerate(slept):
        if number == reset_at:
            full = first
        assert 0.5 * full <= seconds <= full <= longest
        full = min(2 * full, longest)


async def test_a_pause_ends_when_its_task_is_cancelled() -> None:
    attempts = Backoff(60, 60)
    await anext(attempts)

    async def pause() -> None:
        await anext(attempts)

    task = asyncio.create_task(pause())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)


async def test_pauses_of_two_processes_differ() -> None:
    assert await pauses(1, 1, 10) != await pauses(1, 1, 10)
