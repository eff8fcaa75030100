"""Holds a turn lease while the agent works: renews it, stops the turn when it is lost, gives it back."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import structlog

from chat_gateway.limits import held
from chat_gateway.model.errors import CommitCutShort, CommitUnresolved
from chat_gateway.model.turn import AgentConfig, Begun, Committed, Lease, Turn, TurnLimit, TurnRequest
from chat_gateway.ports import Sessions
from servicekit.errors import UNREACHABLE, ServiceError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """In seconds. The lease's own length is session_svc's setting; its answers say when it ends."""

    renew_after: float = 0.25
    """When a turn is first renewed. Most turns without a real model are over by then; from then on the renewal is held
    open, so that an interruption is known at once."""
    renew_interval: float = 4.0
    """How long each renewal is held open; at most a third of the lease."""
    retry_pause: float = 0.25
    commit_resolve: float = 10.0
    """How long a commit with an unknown outcome is asked again before the caller is told."""
    abort_resolve: float = 16.0
    """How long an abort is asked again: by then the lease has run out by itself."""
    abort_wait: float = 0.5
    """How long a turn that failed waits for its abort, so that its session is free when the caller hears of it."""
    longest_abort_pause: float = 4.0
    max_aborts: int = 1000
    """Aborts that are asked again at a time; beyond it, leases run out by themselves."""


class TurnStop:
    """Ends a turn from outside its own code: at its bound, or because its lease is gone.

    Wraps one `asyncio.Timeout`; `error` says what the `TimeoutError` that comes out of it stands for.
    """

    __slots__ = ("_armed", "_scope", "error")

    def __init__(self, scope: asyncio.Timeout) -> None:
        self._scope = scope
        self._armed = True
        self.error: ServiceError | None = None

    def __call__(self, error: ServiceError) -> None:
        """Ends the turn with `error`; the first call wins."""
        if self._armed and self.error is None and not self._scope.expired():
            self.error = error
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def disarm(self) -> None:
        """Lets the turn run on without its bound: what a commit has begun, only its answer may end.

        Does not return where the bound has struck already.
        """
        if self._scope.expired():
            await asyncio.sleep(1)  # the cancellation that is on its way arrives here, before anything is sent
        self._armed = False
        self.error = None
        self._scope.reschedule(None)


class Leases:
    """Makes `HeldLease`s and owns the aborts that outlive their turns."""

    def __init__(self, sessions: Sessions, times: LeaseTimes) -> None:
        self.sessions = sessions
        self.times = times
        self._aborts: set[asyncio.Task[None]] = set()

    async def begin(
        self,
        request: TurnRequest,
        config: AgentConfig,
        turn_id: str,
        digest: bytes,
        limits: tuple[TurnLimit, ...] = (),
    ) -> Begun:
        """See `Sessions.begin`. What was taken without its answer arriving here is given back."""
        try:
            return await self.sessions.begin(request, config, turn_id, digest, limits)
        except (ServiceError, asyncio.CancelledError) as error:
            # A session that was to be made has an id that nobody knows: it goes with its lease.
            self._give_up(error, request, turn_id, limits, request.session_id)
            raise

    async def admit(self, request: TurnRequest, turn_id: str, limits: tuple[TurnLimit, ...]) -> Begun:
        """See `Sessions.admit`. What was taken without its answer arriving here is given back."""
        try:
            return await self.sessions.admit(request, turn_id, limits)
        except (ServiceError, asyncio.CancelledError) as error:
            self._give_up(error, request, turn_id, limits, "")
            raise

    def _give_up(
        self,
        error: BaseException,
        request: TurnRequest,
        turn_id: str,
        limits: tuple[TurnLimit, ...],
        session_id: str,
    ) -> None:
        unknown = not isinstance(error, ServiceError) or error.code in UNREACHABLE
        places = held(limits)
        if unknown and (session_id or places):
            self.abort_later(Lease(request.project, session_id, turn_id, 0, datetime.now(UTC), places))

    def held(self, lease: Lease, stop: TurnStop) -> "HeldLease":
        """Returns the lease as a context manager that renews it within and gives it back at the end."""
        return HeldLease(self, lease, stop)

    def abort_later(self, lease: Lease) -> asyncio.Task[None] | None:
        """Gives the lease back without keeping its turn waiting; asked again until session_svc has answered.

        Where too many wait for an answer already, the lease is left to run out.
        """
        if len(self._aborts) >= self.times.max_aborts:
            return None
        task = asyncio.get_running_loop().create_task(self._abort(lease))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)
        return task

    async def close(self, timeout: float) -> None:
        """Waits for the aborts that are under way and cancels those that are not done in time."""
        if self._aborts:
            _, late = await asyncio.wait(self._aborts, timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _abort(self, lease: Lease) -> None:
        try:
            async with asyncio.timeout(self.times.abort_resolve):
                await self._abort_until_answered(lease)
        except TimeoutError:
            log.warning("abort_unresolved", session_id=lease.session_id, turn_id=lease.turn_id)

    async def _abort_until_answered(self, lease: Lease) -> None:
        pause = self.times.retry_pause
        while True:
            try:
                await self.sessions.abort(lease)
            except ServiceError as error:
                if error.code in UNREACHABLE:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, self.times.longest_abort_pause)
                    continue
                log.info("abort_refused", turn_id=lease.turn_id, reason=error.reason)
            return


class HeldLease:
    """A lease in use. Leaving the context without a commit aborts the turn."""

    def __init__(self, leases: Leases, lease: Lease, stop: TurnStop) -> None:
        self._leases = leases
        self._lease = lease
        self._stop = stop
        self._committing = False
        self._settled = False
        self._renewals: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        # A timer, not a task: most turns are over before the first renewal.
        self._timer = asyncio.get_running_loop().call_later(self._leases.times.renew_after, self._start_renewing)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_renewing()
        if self._settled:
            return
        abort = self._leases.abort_later(self._lease)
        if abort is not None and isinstance(error, Exception):
            await asyncio.wait((abort,), timeout=self._leases.times.abort_wait)

    async def give_back(self) -> None:
        """Ends a turn that has nothing to commit; waits a little for its places in limits to be free."""
        self._stop_renewing()
        self._settled = True
        abort = self._leases.abort_later(self._lease)
        if abort is not None:
            await asyncio.wait((abort,), timeout=self._leases.times.abort_wait)

    async def commit(self, turn: Turn, config: AgentConfig, request_id: str, digest: bytes) -> Committed:
        """Stores the turn. An unknown outcome is resolved by asking again with the same turn, within a bound.

        Beyond it, raises the last error if a repeat of the request is safe (it has an id), else `CommitUnresolved`. The
        turn's own bound does not count any more; a cancellation of the task does, as `CommitCutShort` where a repeat
        is not safe.
        """
        await self._stop.disarm()
        self._committing = True
        try:
            return await self._commit(turn, config, request_id, digest)
        except asyncio.CancelledError:
            if request_id:
                raise
            raise CommitCutShort from None

    async def _commit(self, turn: Turn, config: AgentConfig, request_id: str, digest: bytes) -> Committed:
        times, loop = self._leases.times, asyncio.get_running_loop()
        give_up = loop.time() + times.commit_resolve
        while True:
            try:
                committed = await self._leases.sessions.commit(self._lease, turn, config, request_id, digest)
            except ServiceError as error:
                if error.code not in UNREACHABLE:
                    raise
                if loop.time() >= give_up:
                    # Clients repeat an unavailable peer by themselves: without an id that could store the turn twice.
                    if request_id:
                        raise
                    raise CommitUnresolved from error
                await asyncio.sleep(times.retry_pause)
            else:
                self._settled = True
                return committed

    def _start_renewing(self) -> None:
        self._renewals = asyncio.get_running_loop().create_task(self._renew())

    def _stop_renewing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._renewals is not None:
            self._renewals.cancel()

    async def _renew(self) -> None:
        times, clock = self._leases.times, asyncio.get_running_loop().time
        while True:
            begin = clock()
            try:
                self._lease = await self._leases.sessions.renew(self._lease, times.renew_interval)
            except ServiceError as error:
                # While session_svc is away the lease may still be ours; past its end it may be somebody else's.
                if error.code not in UNREACHABLE or datetime.now(UTC) >= self._lease.expire_time:
                    # A commit releases the lease before its reply is here: what became of the turn, it alone can tell.
                    # A turn without a session has nobody whom it could collide with.
                    if not self._committing and self._lease.session_id:
                        self._stop(error)
                    return
            if clock() - begin < times.renew_interval:
                await asyncio.sleep(times.retry_pause)
