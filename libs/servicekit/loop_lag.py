"""How late the event loop is: what everything in the process waits for when something hogs it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry, Histogram

from servicekit.supervision import cancel_and_wait, supervise

SAMPLE_SECONDS = 0.5

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@contextlib.asynccontextmanager
async def measuring_lag(registry: CollectorRegistry = REGISTRY) -> AsyncIterator[None]:
    """Measures, twice a second while open, how much later than asked for the loop wakes a sleeper."""
    lag = _LAGS.get(registry) or _LAGS.setdefault(registry, _histogram(registry))
    measuring = asyncio.create_task(supervise("event_loop_lag", lambda: _measure(lag)), name="event loop lag")
    try:
        yield
    finally:
        await cancel_and_wait(measuring)


_LAGS: WeakKeyDictionary[CollectorRegistry, Histogram] = WeakKeyDictionary()


def _histogram(registry: CollectorRegistry) -> Histogram:
    return Histogram(
        "parley_event_loop_lag_seconds", "How late the event loop runs.", buckets=_BUCKETS, registry=registry
    )


async def _measure(lag: Histogram) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + SAMPLE_SECONDS
        await asyncio.sleep(SAMPLE_SECONDS)
        lag.observe(max(clock() - due, 0.0))
