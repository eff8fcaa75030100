"""How late the event loop is: what everything in the process waits for when something hogs it."""

import asyncio

from prometheus_client import REGISTRY, CollectorRegistry, Histogram

SAMPLE_SECONDS = 0.25

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


async def measure_lag(registry: CollectorRegistry = REGISTRY) -> None:
    """Measures, four times a second until cancelled, how much later than asked for the loop wakes a sleeper."""
    lag = Histogram(
        "parley_event_loop_lag_seconds", "How late the event loop runs.", buckets=_BUCKETS, registry=registry
    )
    clock = asyncio.get_running_loop().time
    try:
        while True:
            due = clock() + SAMPLE_SECONDS
            await asyncio.sleep(SAMPLE_SECONDS)
            lag.observe(max(clock() - due, 0.0))
    finally:
        registry.unregister(lag)
