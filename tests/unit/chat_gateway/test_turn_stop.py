import asyncio

import pytest

from chat_gateway.model.errors import TurnTimeout
from chat_gateway.turn_stop import TurnStop
from servicekit.errors import Unavailable

LOST = Unavailable("the lease")


async def test_a_stop_ends_the_turn_and_says_why() -> None:
    stop = None
    with pytest.raises(Unavailable) as caught:
        async with TurnStop(60) as stop:
            stop(LOST)
            stop(Unavailable("something later"))
            await asyncio.sleep(60)
    assert stop is not None
    assert caught.value is stop.error is LOST
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_stop_after_the_bound_changes_nothing() -> None:
    stop = None
    with pytest.raises(TurnTimeout):
        async with TurnStop(0) as stop:
            try:
                await asyncio.sleep(60)
            finally:
                stop(LOST)
    assert stop is not None
    assert stop.error is None


async def test_a_disarmed_turn_is_ended_by_nothing() -> None:
    async with TurnStop(0.01) as stop:
        stop(LOST)
        await stop.disarm()
        stop(LOST)
        await asyncio.sleep(0.03)
    assert stop.error is None


async def test_disarming_comes_too_late_once_the_bound_has_struck() -> None:
    async def run() -> None:
        async with TurnStop(0) as stop:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(60)
            await asyncio.sleep(0)
            await stop.disarm()
            raise AssertionError("nothing may be sent any more")

    task = asyncio.ensure_future(run())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_by_somebody_else_stays_one() -> None:
    async def run() -> None:
        async with TurnStop(0.01):
            try:
                await asyncio.sleep(60)
            finally:
                task.cancel()

    task = asyncio.ensure_future(run())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_turn_comes_before_its_bound() -> None:
    with pytest.raises(KeyError):
        async with TurnStop(0.01):
            try:
                await asyncio.sleep(60)
            finally:
                raise KeyError


@pytest.mark.parametrize(("own", "waits", "bound"), [(0.0, None, "turn"), (0.0, 60.0, "turn"), (60.0, 0.0, "deadline")])
async def test_the_bound_that_strikes_first_is_named(own: float, waits: float | None, bound: str) -> None:
    with pytest.raises(TurnTimeout) as caught:
        async with TurnStop(own, waits):
            await asyncio.sleep(60)
    assert caught.value.metadata["bound"] == bound


async def test_a_timeout_within_a_turn_is_its_own() -> None:
    with pytest.raises(TurnTimeout):
        async with TurnStop(60):
            raise TimeoutError
