"""Journals of turns: written by the holder of the lease, watched by users who may read the session."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace

from contract.errors import TooManyWatches
from servicekit.errors import Draining
from servicekit.supervision import cancel_and_wait
from session_svc.model.errors import LeaseLost
from session_svc.model.journal import JournalEvent, NewEvents, TurnWatch
from session_svc.ports import JournalStore

CHECK_IN_SECONDS = 5.0
"""How often a watch polls and sends a heartbeat."""

MAX_WATCHES = 2048
"""Open watches of all gateways."""

PATIENCE_SECONDS = 60.0
"""How long a turn without a gateway is watched: by then another gateway would have taken it over."""


class Journals:
    """Reads and writes journals."""

    def __init__(
        self, store: JournalStore, *, patience: float = PATIENCE_SECONDS, max_watches: int = MAX_WATCHES
    ) -> None:
        self._store = store
        self._max_watches = max_watches
        self._watches = 0
        self._patience = patience
        self._ended = asyncio.Event()

    async def append(self, new: NewEvents) -> str:
        """Adds events; returns the id of the last. Idempotent. Raises as `JournalStore.append`."""
        return await self._store.append(new)

    async def watch(self, watch: TurnWatch) -> AsyncGenerator[tuple[JournalEvent, ...], None]:
        """Yields the entries after an event, and new ones until the turn's end. Yields an empty page after the existing
        entries, and as a heartbeat. Raises `TurnNotFound`, `LeaseLost` if no gateway has run the turn for `patience`
        seconds, `Draining`, and `TooManyWatches`.
        """
        if self._watches >= self._max_watches:
            raise TooManyWatches("session_svc", self._max_watches)
        self._watches += 1
        try:
            async with contextlib.aclosing(self._watch(watch)) as pages:
                async for events in pages:
                    yield events
        finally:
            self._watches -= 1

    async def _watch(self, watch: TurnWatch) -> AsyncGenerator[tuple[JournalEvent, ...], None]:
        loop = asyncio.get_running_loop()
        waiter_id, abandoned_at = self._store.new_waiter_id(), loop.time() + self._patience
        caught_up = False
        while True:
            page = await self._store.read(watch, waiter_id)
            if page.held or page.events:
                abandoned_at = loop.time() + self._patience
            if page.events:
                yield page.events
                watch = replace(watch, after=page.events[-1].id)
            if page.ended:
                return
            if self._ended.is_set():
                raise Draining
            if page.events:
                continue
            if watch.present_only:
                return
            if loop.time() >= abandoned_at:
                raise LeaseLost(watch.key.session_id)
            if not caught_up:
                caught_up = True
                yield ()
            await self._wait(waiter_id)
            yield ()

    def drain(self) -> None:
        """Ends every watch; callers continue at another replica."""
        self._ended.set()

    async def _wait(self, waiter_id: str) -> None:
        woken = asyncio.create_task(
            self._store.wait_for_wakeup(waiter_id, min(CHECK_IN_SECONDS, self._patience)), name="watch of a turn"
        )
        ended = asyncio.create_task(self._ended.wait(), name="end of watches")
        try:
            await asyncio.wait((woken, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(woken, ended)
