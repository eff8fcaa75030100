import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry

from servicekit import loop_lag
from servicekit.loop_lag import SAMPLE_SECONDS, measuring_lag


async def test_a_loop_that_is_held_up_shows() -> None:
    registry = CollectorRegistry()
    async with measuring_lag(registry):
        await asyncio.sleep(0.01)
        time.sleep(SAMPLE_SECONDS + 0.3)  # noqa: ASYNC251
        await asyncio.sleep(0.01)
        assert (registry.get_sample_value("parley_event_loop_lag_seconds_count") or 0) >= 1
        assert (registry.get_sample_value("parley_event_loop_lag_seconds_sum") or 0) >= 0.3
    async with measuring_lag(registry):
        pass  # a second server of the process measures into the same histogram


async def test_it_is_measured_again_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    starts, going = 0, asyncio.Event()

    async def measure(lag: object) -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise ZeroDivisionError
        going.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(loop_lag, "_measure", measure)
    async with measuring_lag(CollectorRegistry()):
        await asyncio.wait_for(going.wait(), 60)
