"""Releases what turns have taken and did not commit, without keeping anybody waiting for it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from chat_gateway.limits import held
from chat_gateway.model.stored_turn import Lease
from chat_gateway.model.turn import TurnLimit, TurnRequest
from chat_gateway.ports import Claims, Sessions
from contract.reasons import Reason
from servicekit.errors import UNREACHABLE, ServiceError
from servicekit.supervision import cancel_and_wait

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AbortTimes:
    """In seconds, but for the count."""

    retry_pause: float = 0.25
    """Before an abort is first asked again; doubled each time."""
    max_retry_pause: float = 4.0
    resolve: float = 16.0
    """How long an abort is asked again: by then the lease has run out by itself."""
    max_aborts: int = 1000
    """Aborts that are asked again at a time; beyond it, leases run out by themselves."""


class Aborts:
    """The aborts that are under way; they outlive their turns. `close` it when no turn runs any more."""

    def __init__(self, sessions: Sessions, times: AbortTimes, claims: Claims | None = None) -> None:
        self._sessions = sessions
        self._times = times
        self._claims = claims
        self.stopping = False
        """Whether the process stops: turns that others can go on with are handed over from now on."""
        self._running: set[asyncio.Task[None]] = set()

    def start(self, lease: Lease, error: ServiceError | None = None) -> asyncio.Task[None] | None:
        """Releases the lease, and asks again until session_svc has answered; returns what does so.

        A journal of the turn ends with the error. None where too many wait for an answer already: the lease is left to
        run out.
        """
        if len(self._running) >= self._times.max_aborts:
            return None
        task = asyncio.get_running_loop().create_task(self._abort(lease, error))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def hand_over(self, lease: Lease) -> asyncio.Task[None] | None:
        """Leaves the turn to another gateway; as `start`."""
        if len(self._running) >= self._times.max_aborts:
            return None
        task = asyncio.get_running_loop().create_task(self._hand_over(lease))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def goes_on(self, lease: Lease, user_id: str) -> bool:
        """Whether a turn that lost its lease is known still: not where its session is gone, or has begun anew."""
        if self._claims is None:
            return True
        try:
            await self._claims.progress(lease.project, lease.session_id, user_id, lease.turn_id)
        except ServiceError as error:
            return error.reason != Reason.TURN_NOT_FOUND
        return True

    @contextmanager
    def unless_answered(self, request: TurnRequest, turn_id: str, limits: tuple[TurnLimit, ...]) -> Iterator[None]:
        """Releases what the call within may have taken, where it ends without an answer that says so."""
        try:
            yield
        except (ServiceError, asyncio.CancelledError) as error:
            unknown = not isinstance(error, ServiceError) or error.code in UNREACHABLE
            places = held(limits)
            # A session that was to be made has an id that nobody knows: it goes with its lease.
            if unknown and (request.session_id or places):
                self.start(Lease(request.project, request.session_id, turn_id, 0, datetime.now(UTC), places))
            raise

    async def close(self, timeout: float) -> None:
        """Waits for the aborts that are under way and cancels those that are not done in time (seconds)."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=timeout)
            await cancel_and_wait(*late)

    async def _hand_over(self, lease: Lease) -> None:
        assert self._claims is not None, "only what was written for other gateways is left to them"
        try:
            await self._claims.hand_over(lease, queued=False)
        except ServiceError as error:
            # Its lease runs out by itself, and then another gateway takes it over.
            log.info("turn_not_handed_over", turn_id=lease.turn_id, reason=error.reason)
        else:
            log.info("turn_handed_over", turn_id=lease.turn_id, session_id=lease.session_id)

    async def _abort(self, lease: Lease, error: ServiceError | None) -> None:
        try:
            async with asyncio.timeout(self._times.resolve):
                await self._abort_until_answered(lease, error)
        except TimeoutError:
            log.warning("abort_unresolved", session_id=lease.session_id, turn_id=lease.turn_id)

    async def _abort_until_answered(self, lease: Lease, error: ServiceError | None) -> None:
        pause = self._times.retry_pause
        while True:
            try:
                await self._sessions.abort(lease, error)
            except ServiceError as refused:
                if refused.code in UNREACHABLE:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, self._times.max_retry_pause)
                    continue
                log.info("abort_refused", turn_id=lease.turn_id, reason=refused.reason)
            return
