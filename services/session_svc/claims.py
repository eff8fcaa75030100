"""Handing over, taking over and cancelling turns."""

import asyncio

import structlog

from contract.reasons import Reason
from servicekit.errors import DeadlineExceeded, Draining, ServiceError
from session_svc.claim_waits import ClaimWaits
from session_svc.metrics import Metrics
from session_svc.model.journal import ClaimedTurn, NothingClaimed, TurnProgress, TurnWatch
from session_svc.model.turn import Lease
from session_svc.ports import ClaimStore
from session_svc.turn_limits import TurnLimiter

LONGEST_CANCEL = 60.0
"""The maximum wait of a cancellation in seconds: by then the lease of a lost gateway has expired."""
LONGEST_HOLD = 60.0
HOLD_MARGIN = 0.15
"""Seconds before the caller's deadline at which a held call is answered."""
FIRST_LOOK, MAX_PAUSE = 0.02, 0.5
KEEP_UP_SECONDS = 0.5

log = structlog.get_logger(__name__)


class Claims:
    """Manages turns without a gateway, and cancellations."""

    def __init__(self, store: ClaimStore, limits: TurnLimiter, metrics: Metrics, waits: ClaimWaits) -> None:
        self._store = store
        self._waits = waits
        self._limits = limits
        self._metrics = metrics
        self._draining = asyncio.Event()

    async def hand_over(self, lease: Lease, *, queued: bool) -> None:
        """Releases the lease for another gateway, which takes the places in limits again. Raises as the store does."""
        await self._store.hand_over(lease, queued=queued)
        if lease.limits:
            await self._limits.free(lease)
        self._waits.handed_over()
        self._metrics.handed_over(queued=queued)

    async def claim(self, hold: float | None, time_left: float | None) -> ClaimedTurn | NothingClaimed:
        """Takes over a turn that no gateway runs, if there is one.

        With `hold`, takes none, but returns once a claim may find one, and at most so many seconds later. `time_left`
        is what the caller gives, in seconds.
        """
        if hold is not None:
            patience = min(hold, LONGEST_HOLD, LONGEST_HOLD if time_left is None else time_left - HOLD_MARGIN)
            return NothingClaimed(held=patience > 0 and await self._waits.wait(patience))
        claimed = await self._store.claim()
        if claimed is None:
            return NothingClaimed(held=False)
        self._metrics.claimed(again=claimed.attempt > 1)
        return claimed

    async def cancel(self, watch: TurnWatch, time_left: float | None) -> None:
        """Ends a turn and returns once it has ended.

        Raises `TurnNotFound`, `DeadlineExceeded` after `time_left` seconds, and `Draining`.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + (LONGEST_CANCEL if time_left is None else min(time_left, LONGEST_CANCEL))
        pause = FIRST_LOOK
        ended = await self._store.cancel(watch)
        while not ended:
            if loop.time() + pause >= give_up:
                raise DeadlineExceeded("the turn has not ended yet", bound="cancel")
            try:
                async with asyncio.timeout(pause):
                    await self._draining.wait()
                raise Draining
            except TimeoutError:
                pause = min(2 * pause, MAX_PAUSE)
            try:
                ended = await self._store.cancel(watch)
            except ServiceError as error:
                if error.reason != Reason.TURN_NOT_FOUND:
                    raise
                return  # it existed before: it has ended and left nothing

    async def cancel_waiting(self, watch: TurnWatch) -> None:
        """Records that the pending calls of a turn will not be answered. Raises as the store does."""
        await self._store.cancel_waiting(watch)

    async def progress(self, watch: TurnWatch, *, with_request: bool = False) -> TurnProgress:
        """Returns the state of a turn. Raises `TurnNotFound`."""
        return await self._store.progress(watch, with_request=with_request)

    async def keep_up(self) -> None:
        """Writes the store's notes until cancelled."""
        while True:
            await asyncio.sleep(KEEP_UP_SECONDS)
            try:
                await self._store.keep_up()
            except ServiceError as error:
                log.info("turns_not_noted", reason=error.reason)

    def drain(self) -> None:
        """Ends every wait; callers continue at another replica."""
        self._draining.set()
        self._waits.drain()
