"""When API keys were last used: recorded in memory, written once a minute, so that a check never waits for a write."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from config_svc.model.api_key import Use
from config_svc.ports.store import Store
from servicekit.errors import ServiceError

INTERVAL = 60.0
BATCH = 500
MAX_RECORDED = 100_000
"""The default limit of keys whose uses are recorded between two writes; further ones are not recorded."""

log = structlog.get_logger("config_svc.key_uses")


class KeyUses:
    """Records uses. Times are truncated to the minute, so a key is written at most once a minute. The latest records
    are written on a clean stop and lost when the process is killed.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime],
        interval: float = INTERVAL,
        limit: int = MAX_RECORDED,
    ) -> None:
        self._store = store
        self._clock = clock
        self._interval = interval
        self._limit = limit
        self._recorded: dict[str, Use] = {}

    def record(self, key_id: str, written: datetime | None, new_hash: bytes | None = None) -> None:
        """Records that a key is used now; `written` is the last use that is stored. Costs no I/O."""
        minute = self._clock().replace(second=0, microsecond=0)
        earlier = self._recorded.get(key_id)
        known = earlier.time if earlier is not None else written
        if (known is not None and minute - known < timedelta(minutes=1) and new_hash is None) or (
            earlier is None and len(self._recorded) >= self._limit
        ):
            return
        self._recorded[key_id] = Use(key_id, minute, new_hash)

    async def run(self) -> None:
        """Writes the records once per interval, for ever, and once more when cancelled."""
        try:
            while True:
                await asyncio.sleep(self._interval)
                await self._write_or_put_off()
        finally:
            await self._write_or_put_off()

    async def write(self) -> None:
        """Writes the current records."""
        while self._recorded:
            batch = [self._recorded[key_id] for key_id in list(self._recorded)[:BATCH]]
            await self._store.note_uses(batch)
            for use in batch:
                if self._recorded.get(use.key_id) is use:
                    del self._recorded[use.key_id]

    async def _write_or_put_off(self) -> None:
        try:
            await self.write()
        except ServiceError as error:
            log.warning("key_uses_postponed", reason=error.reason)
