"""Holds a turn lease while the agent works: renews it, stops the turn when it is lost, releases it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import structlog

from chat_gateway.aborts import Aborts
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.errors import (
    CommitCutShort,
    CommitUnresolved,
    TurnCutShort,
    TurnHandedOver,
    TurnQueueFull,
)
from chat_gateway.model.journal import JournalEntry, TurnBegun, UnwrittenEntries
from chat_gateway.model.stored_turn import Committed, Lease, Turn
from chat_gateway.ports import Sessions
from chat_gateway.turn_stop import TurnStop
from contract.reasons import Reason
from servicekit.errors import UNREACHABLE, ServiceError

_OTHERS_MAY = frozenset({Reason.DRAINING, Reason.PEER_UNAVAILABLE, Reason.SESSION_BUSY})
"""SESSION_BUSY: the turn was taken over, its new lease has expired as well, and it waits for a gateway."""
_ENDED_THERE = frozenset({Reason.LEASE_LOST, Reason.TURN_INTERRUPTED, Reason.TURN_CANCELLED, Reason.TURN_GIVEN_UP})
"""Ends of a turn that session_svc itself reported."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """In seconds. The lease's own length is session_svc's setting; its answers say when it ends."""

    renew_after: float = 0.25
    """When the lease is first renewed.

    From then on the renewal is held open, so that an interruption is noticed at once; shorter turns never renew.
    """
    renew_interval: float = 4.0
    """How long each renewal is held open; at most a third of the lease."""
    retry_pause: float = 0.25
    commit_resolve: float = 10.0
    """How long a commit with an unknown outcome is repeated before the turn fails."""
    abort_wait: float = 0.5
    """How long a failed turn waits for its abort, so that its session is free when the caller gets the error."""
    end_wait: float = 5.0
    """As `abort_wait`, of a turn that another gateway continues unless session_svc knows that it has ended."""


class HeldLease:
    """A lease in use, as a context manager: renewed within. Leaving it without a commit aborts the turn."""

    def __init__(
        self,
        lease: Lease,
        stop: TurnStop,
        sessions: Sessions,
        aborts: Aborts,
        times: LeaseTimes,
        user_id: str = "",
    ) -> None:
        self._lease = lease
        self._user_id = user_id
        self._sessions = sessions
        self._aborts = aborts
        self._times = times
        self._stop = stop
        self._committing = False
        self._released = False
        self._renewals: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        # A timer, not a task: most turns are over before the first renewal.
        self._timer = asyncio.get_running_loop().call_later(self._times.renew_after, self._start_renewing)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_renewing()
        if self._released:
            return
        if self._lease.goes_on and error is not None:
            await self._leave_to_others(error)
        abort = self._aborts.start(self._lease, self._stop.reason_of(error) if self._lease.journaled else None)
        failed = isinstance(error, Exception) or (error is not None and self._stop.has_stopped)
        if self._lease.goes_on and failed:
            await self._ended_for_others(abort, error)
        elif abort is not None and isinstance(error, Exception):
            await asyncio.wait((abort,), timeout=self._times.abort_wait)

    @property
    def attempt(self) -> int:
        """The number of the gateway that runs the turn, from 1."""
        return self._lease.attempt

    async def append(self, first: int, entries: Sequence[JournalEntry]) -> str:
        """Adds entries to the turn's journal, as `Sessions.append`; the end of the turn then ends the journal. Retried
        while session_svc is unreachable and the lease lasts.
        """
        goes_on = self._lease.goes_on or any(isinstance(one, TurnBegun) and one.request for one in entries)
        self._lease = replace(self._lease, journaled=True)
        while True:
            try:
                event_id = await self._sessions.append(self._lease, first, entries)
            except ServiceError as error:
                if error.code not in UNREACHABLE:
                    raise
                self._lease = replace(self._lease, goes_on=goes_on)  # as far as is known
                if self._lease.has_ended:
                    raise
            else:
                if goes_on is not self._lease.goes_on:
                    self._lease = replace(self._lease, goes_on=goes_on)
                return event_id
            await asyncio.sleep(self._times.retry_pause)

    def took(self, lease: Lease) -> None:
        """Records the places in limits that the turn holds under the same lease."""
        self._lease = replace(self._lease, limits=lease.limits, expire_time=lease.expire_time)

    async def _leave_to_others(self, error: BaseException) -> None:
        """Raises `TurnHandedOver` or `TurnCutShort` if another gateway continues the turn; otherwise returns."""
        reason, handed_over = self._stop.reason_of(error), TurnHandedOver(self._lease.turn_id, self._lease.session_id)
        if isinstance(error, asyncio.CancelledError) and self._aborts.stopping and not self._stop.has_stopped:
            self._aborts.hand_over(self._lease)
            raise TurnCutShort(handed_over) from error
        if isinstance(error, TurnQueueFull | CommitUnresolved) or reason.reason in _OTHERS_MAY:
            self._aborts.hand_over(self._lease)
            raise handed_over from error
        # The lease has expired: the gateway that takes the turn over owns the journal and ends the turn.
        ran_out = reason.code in UNREACHABLE and self._lease.has_ended
        if ran_out or (reason.reason == Reason.LEASE_LOST and await self._aborts.goes_on(self._lease, self._user_id)):
            raise handed_over from error

    async def _ended_for_others(self, abort: asyncio.Task[bool] | None, error: BaseException | None) -> None:
        """Waits until session_svc knows that the turn has ended. Raises `TurnHandedOver` if that is not certain."""
        if abort is not None:
            await asyncio.wait((abort,), timeout=self._times.end_wait)
            # Behind the lease's end another gateway may have had it already.
            if abort.done() and not abort.cancelled() and abort.result() and not self._lease.has_ended:
                return
        if self._stop.reason_of(error).reason not in _ENDED_THERE:
            raise TurnHandedOver(self._lease.turn_id, self._lease.session_id) from error

    async def release(self) -> None:
        """Ends a turn without a commit; waits briefly for its places in limits to be released."""
        self._stop_renewing()
        self._released = True
        abort = self._aborts.start(self._lease)
        if abort is not None:
            await asyncio.wait((abort,), timeout=self._times.abort_wait)

    async def commit(
        self, turn: Turn, config: AgentConfig, request_id: str, digest: bytes, rest: UnwrittenEntries | None = None
    ) -> Committed:
        """Stores the turn. An unknown outcome is resolved by repeating the commit within a bound. After that, raises
        the last error if repeating the request is safe (it has an id), else `CommitUnresolved`. The turn's timeout no
        longer applies; a cancellation of the task does, as `CommitCutShort` if repeating is not safe.
        """
        await self._stop.disarm()
        self._committing = True
        try:
            return await self._commit(turn, config, request_id, digest, rest)
        except asyncio.CancelledError:
            if request_id:
                raise
            raise CommitCutShort from None

    async def _commit(
        self, turn: Turn, config: AgentConfig, request_id: str, digest: bytes, rest: UnwrittenEntries | None
    ) -> Committed:
        times, loop = self._times, asyncio.get_running_loop()
        give_up = loop.time() + times.commit_resolve
        while True:
            try:
                committed = await self._sessions.commit(self._lease, turn, config, request_id, digest, rest)
            except ServiceError as error:
                # An older replica may not know journals: another is asked.
                unknown = rest is not None and error.reason == Reason.NOT_IMPLEMENTED
                if error.code not in UNREACHABLE and not unknown:
                    raise
                if loop.time() >= give_up:
                    # Clients retry after "unavailable" by themselves: without an id this could store the turn twice.
                    if request_id or unknown:
                        raise
                    raise CommitUnresolved from error
                await asyncio.sleep(times.retry_pause)
            else:
                self._released = True
                return committed

    def _start_renewing(self) -> None:
        self._renewals = asyncio.get_running_loop().create_task(self._renew())

    def _stop_renewing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._renewals is not None:
            self._renewals.cancel()

    async def _renew(self) -> None:
        times, clock = self._times, asyncio.get_running_loop().time
        while True:
            begin = clock()
            try:
                renewed = await self._sessions.renew(self._lease, times.renew_interval)
                self._lease = replace(self._lease, expire_time=renewed.expire_time, ends=renewed.ends)
            except ServiceError as error:
                # While session_svc is unreachable the lease may still be ours; after its end it may be another's.
                if error.code not in UNREACHABLE or self._lease.has_ended:
                    # A commit releases the lease before its reply arrives, and only the reply has the outcome. A
                    # stateless turn can't collide with another.
                    if not self._committing and self._lease.session_id:
                        self._stop(error)
                    return
            if clock() - begin < times.renew_interval:
                await asyncio.sleep(times.retry_pause)
