"""When API keys were last used: noted in memory, written once a minute, so that a check never waits for a write."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from config_svc.model.api_key import Use
from config_svc.ports.store import Store
from servicekit.errors import ServiceError

INTERVAL = 60.0
BATCH = 500
MAX_NOTED = 100_000
"""Keys whose use is noted between two writes; that of more of them is not."""

log = structlog.get_logger("config_svc.key_uses")


class KeyUses:
    """Takes notes of uses. Times are cut to the minute, so that a key is written at most once a minute.

    What a process noted last is lost when it is killed, and written when it ends in order.
    """

    def __init__(self, store: Store, *, clock: Callable[[], datetime], interval: float = INTERVAL) -> None:
        self._store = store
        self._clock = clock
        self._interval = interval
        self._noted: dict[str, Use] = {}

    def note(self, key_id: str, written: datetime | None, new_hash: bytes | None = None) -> None:
        """Notes that a key is used now, which was last `written` to be used then. Costs no I/O."""
        minute = self._clock().replace(second=0, microsecond=0)
        earlier = self._noted.get(key_id)
        known = earlier.time if earlier is not None else written
        if (known is not None and minute - known < timedelta(minutes=1) and new_hash is None) or (
            earlier is None and len(self._noted) >= MAX_NOTED
        ):
            return
        self._noted[key_id] = Use(key_id, minute, new_hash)

    async def run(self) -> None:
        """Writes what was noted, once an interval, for ever; and once more when it is cancelled."""
        try:
            while True:
                await asyncio.sleep(self._interval)
                await self._write_or_put_off()
        finally:
            await self._write_or_put_off()

    async def write(self) -> None:
        """Writes what was noted until now."""
        while self._noted:
            batch = [self._noted[key_id] for key_id in list(self._noted)[:BATCH]]
            await self._store.note_uses(batch)
            for use in batch:
                if self._noted.get(use.key_id) is use:
                    del self._noted[use.key_id]

    async def _write_or_put_off(self) -> None:
        try:
            await self.write()
        except ServiceError as error:
            log.warning("uses of keys are written later", reason=error.reason)
