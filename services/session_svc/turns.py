"""Beginning a turn, with the wait for its place in the session's queue."""

import asyncio
import contextlib
from dataclasses import replace

from servicekit.errors import Code, Draining, ServiceError
from session_svc.metrics import Metrics
from session_svc.model.errors import LimitQueueFull, RateLimited, SessionBusy, ToolChainTooLarge
from session_svc.model.session import SessionKey, new_session_id, session_id_of_request
from session_svc.model.turn import (
    BeginTurn,
    Begun,
    Committed,
    CommitTurn,
    Joined,
    Lease,
    Replayed,
    StatelessTurn,
    Waiting,
)
from session_svc.ports import TurnStore
from session_svc.turn_limits import TurnLimiter

LONGEST_WAIT = 300.0
ANSWER_MARGIN = 0.15
"""Seconds before the caller's deadline at which a wait ends, so that the answer still arrives."""

CHECK_IN_MARGIN = 0.02
"""Seconds after a lease's end at which a waiter that was not woken checks again."""


class Turns:
    """The life of a turn as far as the store is concerned."""

    def __init__(self, store: TurnStore, limits: TurnLimiter, metrics: Metrics, *, longest_hold: float = 5.0) -> None:
        self._store = store
        self._limits = limits
        self._metrics = metrics
        self._longest_hold = longest_hold
        self._leaving: set[asyncio.Task[None]] = set()
        self._held: set[asyncio.Timeout] = set()
        self._draining = False

    async def begin(self, turn: BeginTurn, time_left: float | None) -> Begun | Replayed | Joined:
        """Takes the lease, after a wait where the policy is to wait; a session id is made where none is given.

        `time_left` is what the caller gives, in seconds. Raises what `TurnStore.begin` does; `SessionBusy` also when
        the time is up, and `Draining` when this process ends before it was the caller's turn. A call that is cancelled
        leaves neither a place in a queue nor a lease behind, and counts in no limit.
        """
        if not turn.key.session_id:
            turn = replace(turn, key=SessionKey(turn.key.project, _made_id(turn)))
        loop = asyncio.get_running_loop()
        begin_time = loop.time()
        patience = LONGEST_WAIT if time_left is None else min(time_left, LONGEST_WAIT)
        waiter_id = self._store.new_waiter_id()
        try:
            outcome = await self._attempt(turn, waiter_id, begin_time + patience - ANSWER_MARGIN)
            if isinstance(outcome, Waiting):
                with self._metrics.waiting():
                    outcome = await self._wait(turn, waiter_id, outcome, begin_time + patience - ANSWER_MARGIN)
                self._metrics.waited(loop.time() - begin_time)
        except asyncio.CancelledError:
            self._leave(turn, waiter_id, cancelled=True)
            raise
        except ServiceError as error:
            self._metrics.refused(error.reason)
            if error.code in (Code.UNAVAILABLE, Code.DATA_LOSS) or isinstance(error, ToolChainTooLarge):
                self._leave(turn, waiter_id)  # it may have got the lease, and the caller will not learn of it
            await self._limits.roll_back(turn, error)
            raise
        if not isinstance(outcome, Joined):
            self._metrics.begun(outcome)
        return outcome

    async def begin_stateless(self, turn: BeginTurn, time_left: float | None) -> StatelessTurn:
        """Takes the limits of a stateless turn, after a wait where they say so; see `TurnLimiter.enter`."""
        patience = LONGEST_WAIT if time_left is None else min(time_left, LONGEST_WAIT)
        give_up = asyncio.get_running_loop().time() + patience - ANSWER_MARGIN
        waiter_id = self._store.new_waiter_id()
        try:
            taken = await self._limits.enter(turn, waiter_id, give_up, self._wait_or_drained)
        except asyncio.CancelledError:
            self._leave(turn, waiter_id, cancelled=True)
            raise
        except ServiceError as error:
            self._metrics.refused(error.reason)
            await self._limits.roll_back(turn, error)
            raise
        return StatelessTurn(self._limits.lease(turn, taken), taken.states)

    async def _attempt(
        self, turn: BeginTurn, waiter_id: str, give_up: float, *, again: bool = False
    ) -> Begun | Replayed | Joined | Waiting:
        loop = asyncio.get_running_loop()
        if not turn.limits:
            return await self._store.begin(turn, waiter_id, _milliseconds(give_up - loop.time()))
        try:
            taken = await self._limits.enter(turn, waiter_id, give_up, self._wait_or_drained, again=again)
        except (RateLimited, LimitQueueFull):
            if again:  # it has a place in the session's queue, which the session would be kept free for
                await self._store.leave(turn.key, waiter_id)
            if replayed := await self._store.replayed(turn):
                return replayed
            raise
        outcome = await self._store.begin(turn, waiter_id, _milliseconds(give_up - loop.time()))
        if isinstance(outcome, Begun):
            lease = replace(outcome.lease, limits=self._limits.held(turn))
            return replace(outcome, lease=lease, limits=taken.states)
        if isinstance(outcome, Replayed | Joined):
            await self._limits.roll_back(turn)
        else:
            await self._limits.step_aside(turn)
        return outcome

    async def _wait(self, turn: BeginTurn, waiter_id: str, place: Waiting, give_up: float) -> Begun | Replayed | Joined:
        loop = asyncio.get_running_loop()
        while True:
            check_in = place.check_in_ms / 1000
            await self._wait_for_wakeup(waiter_id, min(check_in + CHECK_IN_MARGIN, max(give_up - loop.time(), 0.0)))
            if self._draining:
                await self._store.leave(turn.key, waiter_id)
                raise Draining
            left = give_up - loop.time()
            if left <= 0:
                await self._store.leave(turn.key, waiter_id)
                raise SessionBusy(turn.key.session_id, check_in)
            outcome = await self._attempt(turn, waiter_id, give_up, again=True)
            if not isinstance(outcome, Waiting):
                return outcome
            place = outcome

    async def renew(self, lease: Lease, hold: float) -> Lease:
        """Answers after `hold` seconds, or once the lease is lost.

        Holding is bounded by a third of the lease, so that the answer is an extended lease again.
        """
        if hold <= 0:
            return await self._renew(lease)
        waiter_id = self._store.new_waiter_id()
        renewed = await self._renew(lease, waiter_id)
        await self._wait_for_wakeup(waiter_id, min(hold, self._longest_hold))
        return await self._renew(renewed)

    async def _renew(self, lease: Lease, waiter_id: str = "") -> Lease:
        if not lease.limits:
            return await self._store.renew(lease, waiter_id)
        if not lease.key.session_id:
            return replace(lease, expire_ms=await self._limits.keep(lease))
        renewed = await self._store.renew(lease, waiter_id)
        await self._limits.keep_up(lease)
        return replace(renewed, limits=lease.limits)

    async def commit(self, commit: CommitTurn) -> Committed:
        try:
            committed = await self._store.commit(commit)
        except ServiceError as error:
            self._metrics.refused(error.reason)
            raise
        if commit.lease.limits:
            await self._limits.free(commit.lease)
        self._metrics.committed()
        return committed

    async def abort(self, lease: Lease, end_event: bytes = b"") -> None:
        if lease.key.session_id:
            await self._store.abort(lease, end_event)
        if lease.limits:
            await self._limits.free(lease)
        self._metrics.aborted()

    def drain(self) -> None:
        """Ends every wait now: a turn that waits for its place gets `Draining`, a renewal that is held its answer."""
        self._draining = True
        for scope in self._held:
            scope.reschedule(0)

    async def _wait_for_wakeup(self, waiter_id: str, timeout: float) -> None:
        if self._draining:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as scope:
                self._held.add(scope)
                try:
                    await self._store.wait_for_wakeup(waiter_id, timeout)
                finally:
                    self._held.discard(scope)

    async def _wait_or_drained(self, waiter_id: str, timeout: float) -> None:
        await self._wait_for_wakeup(waiter_id, timeout)
        if self._draining:
            raise Draining

    async def close(self) -> None:
        """Waits until what cancelled calls had is released."""
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._limits.close()

    def _leave(self, turn: BeginTurn, waiter_id: str, *, cancelled: bool = False) -> None:
        task = asyncio.create_task(self._release(turn, waiter_id, cancelled), name="leave a turn queue")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _release(self, turn: BeginTurn, waiter_id: str, cancelled: bool) -> None:
        # While Redis is unreachable nothing can be released: the place and the lease then run out by themselves.
        if not turn.stateless:
            with contextlib.suppress(Exception):
                await self._store.leave(turn.key, waiter_id)
        if cancelled:
            with contextlib.suppress(Exception):
                await self._limits.roll_back(turn)


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 0)


def _made_id(turn: BeginTurn) -> str:
    if turn.request is None:
        return new_session_id()
    return session_id_of_request(turn.key.project, turn.agent_uid, turn.user_id, turn.request.request_id)
