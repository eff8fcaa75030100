"""Releases the leases of turns that did not commit, in the background."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

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
    """In seconds, except the count."""

    retry_pause: float = 0.25
    """The first pause before an abort is retried; doubled each time."""
    max_retry_pause: float = 4.0
    resolve: float = 16.0
    """How long an abort is retried: by then the lease has expired."""
    max_aborts: int = 1000
    """Concurrent retries; beyond that, leases are left to expire."""


class Aborts:
    """The running aborts, which outlive their turns. `close` it once no turn runs."""

    def __init__(self, sessions: Sessions, times: AbortTimes, claims: Claims | None = None) -> None:
        self._sessions = sessions
        self._times = times
        self._claims = claims
        self.stopping = False
        """Whether the process is stopping, so that turns are handed over to other gateways where possible."""
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, lease: Lease, error: ServiceError | None = None) -> asyncio.Task[bool] | None:
        """Releases the lease, retrying until session_svc answers; returns the task that does so, with whether it was
        released. The turn's journal ends with the error. None if too many aborts are waiting: the lease is left to
        expire.
        """
        if len(self._running) >= self._times.max_aborts:
            return None
        task = asyncio.get_running_loop().create_task(self._abort(lease, error))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def hand_over(self, lease: Lease) -> asyncio.Task[None] | None:
        """Hands the turn over to another gateway; otherwise as `start`."""
        if len(self._running) >= self._times.max_aborts:
            return None
        task = asyncio.get_running_loop().create_task(self._hand_over(lease))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def goes_on(self, lease: Lease, user_id: str) -> bool:
        """Whether session_svc still knows a turn that lost its lease; false if its session is gone or was recreated."""
        if self._claims is None:
            return True
        try:
            await self._claims.progress(lease.project, lease.session_id, user_id, lease.turn_id)
        except ServiceError as error:
            return error.reason != Reason.TURN_NOT_FOUND
        return True

    def unless_answered(
        self, request: TurnRequest, turn_id: str, limits: tuple[TurnLimit, ...], *, has_lease: bool = False
    ) -> "_UnlessAnswered":
        """Releases what the call within may have taken if it fails without a reply.

        `has_lease`: the turn had its lease before the call; its holder releases it.
        """
        # The id of a session that may have been created is unknown: it expires with its lease.
        return _UnlessAnswered(self, request.project, "" if has_lease else request.session_id, turn_id, limits)

    async def close(self, timeout: float) -> None:
        """Waits up to `timeout` seconds for running aborts, then cancels the rest."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=timeout)
            await cancel_and_wait(*late)

    async def _hand_over(self, lease: Lease) -> None:
        assert self._claims is not None, "only what was written for other gateways is left to them"
        try:
            await self._claims.hand_over(lease, queued=False)
        except ServiceError as error:
            # Its lease expires, and then another gateway takes it over.
            log.info("turn_not_handed_over", turn_id=lease.turn_id, reason=error.reason)
        else:
            log.info("turn_handed_over", turn_id=lease.turn_id, session_id=lease.session_id)

    async def _abort(self, lease: Lease, error: ServiceError | None) -> bool:
        try:
            async with asyncio.timeout(self._times.resolve):
                return await self._abort_until_answered(lease, error)
        except TimeoutError:
            log.warning("abort_unresolved", session_id=lease.session_id, turn_id=lease.turn_id)
            return False

    async def _abort_until_answered(self, lease: Lease, error: ServiceError | None) -> bool:
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
                return False
            return True


class _UnlessAnswered:
    """A class and not a generator, which costs twice as much: every turn makes one."""

    __slots__ = ("_aborts", "_limits", "_project", "_session_id", "_turn_id")

    def __init__(
        self, aborts: Aborts, project: str, session_id: str, turn_id: str, limits: tuple[TurnLimit, ...]
    ) -> None:
        self._aborts = aborts
        self._project = project
        self._session_id = session_id
        self._turn_id = turn_id
        self._limits = limits

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        unknown = isinstance(error, asyncio.CancelledError) or (
            isinstance(error, ServiceError) and error.code in UNREACHABLE
        )
        if not unknown:
            return
        places = held(self._limits)
        if self._session_id or places:
            self._aborts.start(Lease(self._project, self._session_id, self._turn_id, 0, datetime.now(UTC), places))
