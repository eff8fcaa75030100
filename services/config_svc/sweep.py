"""Removes what has outlived its retention: deleted agent configs, request ids, providers, old changes of the feed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from config_svc.agents import REQUEST_ID_LIFETIME
from config_svc.metrics import Metrics
from config_svc.store import Store
from servicekit.errors import ServiceError

BATCH = 500

_log = structlog.get_logger("config_svc.sweep")


@dataclass(frozen=True, slots=True)
class Sweep:
    """Sweeps every `interval` seconds. `keep_changes` bounds how many changes the feed keeps, whatever their age."""

    store: Store
    clock: Callable[[], datetime]
    metrics: Metrics
    feed_retention: timedelta
    keep_changes: int
    interval: float = 60.0

    async def run(self) -> None:
        """Sweeps for ever; while the database is away there is nothing to do."""
        while True:
            try:
                await self.once()
            except ServiceError as error:
                _log.warning("sweep put off", reason=error.reason)
            await asyncio.sleep(self.interval)

    async def once(self) -> None:
        """Removes all that is due now, in small transactions. Safe to run on several replicas at once."""
        now = self.clock()
        await self._drain("agent_configs", lambda: self.store.purge(now, BATCH))
        await self._drain("changes", lambda: self.store.compact(now - self.feed_retention, self.keep_changes))
        await self._drain("providers", lambda: self.store.forget_providers(now))
        await self._drain("request_ids", lambda: self.store.forget_claims(now - REQUEST_ID_LIFETIME))

    async def _drain(self, kind: str, remove: Callable[[], Awaitable[int]]) -> None:
        while removed := await remove():
            self.metrics.removed.labels(kind).inc(removed)
            _log.info("removed", kind=kind, rows=removed)
