import asyncio
import time

from prometheus_client import CollectorRegistry

from servicekit.loop_lag import SAMPLE_SECONDS, measuring_lag


async def test_a_loop_that_is_held_up_shows() -> None:
    registry = CollectorRegistry()
    async with measuring_lag(registry):
        await asyncio.sleep(0.01)
        time.sleep(SAMPLE_SECONDS + 0.3)  # noqa: ASYNC251
        await asyncio.sleep(0.01)
        assert registry.get_sample_value("parley_event_loop_lag_seconds_count") == 1
        assert (registry.get_sample_value("parley_event_loop_lag_seconds_sum") or 0) >= 0.3
    async with measuring_lag(registry):
        pass  # a second server of the process measures into the same histogram
