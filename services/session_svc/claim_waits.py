"""Calls of gateways that wait until there may be a turn to take over."""

import asyncio
import contextlib
import random

from servicekit.errors import ServiceError
from session_svc.ports import ClaimStore

LOOK_SECONDS = 1.0
"""The average pause between looks, for turns that other replicas hand over; what is known here is seen at once."""
AGAIN_SECONDS = 0.1
"""How long the turn is left to the gateway that was woken for it, before the next one is."""


class ClaimWaits:
    """The calls that wait here. `look_out` looks at the store for all of them, and only while there are any.

    A wait has no effect on any turn: whoever is woken has to claim it. So a gateway that is lost while it waits costs
    `again` seconds, not a lease.
    """

    def __init__(
        self, store: ClaimStore, *, max_waits: int, look: float = LOOK_SECONDS, again: float = AGAIN_SECONDS
    ) -> None:
        self._store = store
        self._max_waits = max_waits
        self._look_seconds = look
        self._again_seconds = again
        self._waits: dict[asyncio.Future[bool], None] = {}
        self._changed = asyncio.Event()
        self._draining = False

    async def wait(self, timeout: float) -> bool:
        """Returns once there may be a turn, or after `timeout` seconds; false if it can't wait, or no longer."""
        if self._draining or len(self._waits) >= self._max_waits:
            return False
        woken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if not self._waits:
            self._changed.set()
        self._waits[woken] = None
        try:
            async with asyncio.timeout(timeout):
                return await woken
        except TimeoutError:
            return True
        finally:
            self._waits.pop(woken, None)

    def handed_over(self) -> None:
        """There may be a turn now."""
        self._changed.set()

    def drain(self) -> None:
        """Ends every wait; callers continue at another replica."""
        self._draining = True
        while self._waits:
            self._wake_first(waited=False)

    async def look_out(self) -> None:
        """Wakes one call after the other while there is a turn; until cancelled."""
        while True:
            pause = await self._look() if self._waits else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            self._changed.clear()

    async def _look(self) -> float:
        """Looks once; returns in how many seconds to look again."""
        pause = self._look_seconds * random.uniform(0.5, 1.5)
        try:
            due = await self._store.next_due()
        except ServiceError:
            return pause
        if due is None or due > 0:
            return pause if due is None else min(pause, due)
        if self._waits:
            self._wake_first(waited=True)
        await asyncio.sleep(self._again_seconds)
        return 0.0

    def _wake_first(self, *, waited: bool) -> None:
        woken = next(iter(self._waits))
        del self._waits[woken]
        if not woken.done():
            woken.set_result(waited)
