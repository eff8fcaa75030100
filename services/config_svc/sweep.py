"""Removes what has outlived its retention, and completes interrupted deletions of projects."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from config_svc.access.projects import Projects
from config_svc.agents.configs import REQUEST_ID_LIFETIME
from config_svc.audit.events import SELF, agent_event
from config_svc.metrics import Metrics
from config_svc.model.spec_json import EncodedAgent
from config_svc.ports.store import Store, Transaction
from servicekit.errors import ServiceError

BATCH = 500
KEY_CHANGES_KEPT = timedelta(hours=1)
"""Much longer than any follower can lag behind: one that was cut off does not resume."""

log = structlog.get_logger("config_svc.sweep")


@dataclass(frozen=True, slots=True)
class Sweep:
    """Sweeps every `interval` seconds, `batch` rows a transaction.

    `keep_changes` bounds how many changes the feed keeps, whatever their age.

    API keys are removed `key_retention` after their end, audit events `audit_retention` after they happened.
    """

    store: Store
    clock: Callable[[], datetime]
    metrics: Metrics
    feed_retention: timedelta
    keep_changes: int
    projects: Projects
    key_retention: timedelta = timedelta(days=90)
    audit_retention: timedelta = timedelta(days=400)
    interval: float = 60.0
    batch: int = BATCH

    async def run(self) -> None:
        """Sweeps for ever; does nothing while the database is unavailable."""
        while True:
            try:
                await self.once()
            except ServiceError as error:
                log.warning("sweep_postponed", reason=error.reason)
            await asyncio.sleep(self.interval)

    async def once(self) -> None:
        """Removes everything that is due, in small transactions. Safe to run on several replicas concurrently."""
        now = self.clock()
        await self._drain("projects", self.projects.resume)
        await self._drain("agent_configs", lambda: purge(self.store, now, self.batch))
        await self._drain("changes", lambda: self.store.compact(now - self.feed_retention, self.keep_changes))
        await self._drain("providers", lambda: self.store.forget_providers(now))
        await self._drain("request_ids", lambda: self.store.forget_claims(now - REQUEST_ID_LIFETIME))
        await self._drain("api_keys", lambda: self.store.forget_keys(now - self.key_retention, self.batch))
        await self._drain("api_key_changes", lambda: self.store.forget_key_changes(now - KEY_CHANGES_KEPT))
        oldest_event = now - self.audit_retention
        await self._drain("audit_events", lambda: self.store.forget_audit_events(oldest_event, self.batch))

    async def _drain(self, kind: str, remove: Callable[[], Awaitable[int]]) -> None:
        while removed := await remove():
            self.metrics.removed.labels(kind).inc(removed)
            log.info("rows_removed", kind=kind, rows=removed)


async def purge(store: Store, now: datetime, limit: int) -> int:
    """Removes at most `limit` deleted agent configs whose purge time has come; returns how many."""

    async def work(transaction: Transaction) -> int:
        gone = await transaction.purge(now, limit)
        await transaction.record(
            [agent_event("purge", EncodedAgent.of(agent), None, now, caller=SELF) for agent in gone]
        )
        return len(gone)

    return await store.transact(work)
