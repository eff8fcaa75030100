"""A turn's limits: taken before it begins, held while it runs, rolled back if it does not begin."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from servicekit.errors import Draining, ServiceError, Unavailable
from session_svc.model.limits import LimitedTurn, LimitTaken, TurnLimit
from session_svc.model.turn import BeginTurn, Lease
from session_svc.ports import LimitStore

CHECK_IN_MARGIN = 0.02
"""Seconds after a place expires at which a waiter that was not woken checks again."""

PATIENCE = 0.25
"""Seconds that a turn waits for what must not fail it: its limits may be kept on a server that is unreachable, or that
stands still, while its session is on one that answers."""

WaitForWakeup = Callable[[str, float], Awaitable[None]]


class TurnLimiter:
    """Admits turns by their limits. Turns without a limit do not use it."""

    def __init__(self, store: LimitStore, *, lease_ms: int) -> None:
        self._store = store
        self._lease_ms = lease_ms
        self._under_way: set[asyncio.Task[None]] = set()

    async def enter(
        self, turn: BeginTurn, waiter_id: str, give_up: float, wait: WaitForWakeup, *, again: bool = False
    ) -> LimitTaken:
        """Takes all limits of the turn, or none; waits until `give_up` (the loop's time) where a limit says so.

        `again` says that this turn was counted before and only needs its place. `wait` waits for the wakeup; what it
        raises ends the wait. Raises `RateLimited`, `LimitQueueFull`, `Unavailable`.
        """
        loop, limited = asyncio.get_running_loop(), LimitedTurn(turn.key.project, turn.turn_id, turn.limits)
        while True:
            left = give_up - loop.time()
            taken = await self._store.take(limited, waiter_id, wait=left > 0, counted=again)
            if isinstance(taken, LimitTaken):
                return taken
            await wait(waiter_id, min(taken.check_in_ms / 1000 + CHECK_IN_MARGIN, max(left, 0.0)))
            again = True

    async def step_aside(self, turn: BeginTurn) -> None:
        """Frees the turn's places in those limits for which turns wait: it waits for its session, and uses none."""
        waiting = tuple(limit for limit in turn.limits if limit.wait and limit.concurrent_turns)
        if waiting:
            await self._store.free(LimitedTurn(turn.key.project, turn.turn_id, waiting))

    async def roll_back(self, turn: BeginTurn, error: ServiceError | None = None) -> None:
        """Undoes what `enter` did, the count too. Where the store is unreachable, places run out by themselves.

        After an `error` that leaves open whether the turn has begun nothing is undone: the caller aborts it.
        """
        if turn.limits and (not isinstance(error, Unavailable) or isinstance(error, Draining)):
            with contextlib.suppress(Unavailable):
                await self._store.roll_back(LimitedTurn(turn.key.project, turn.turn_id, turn.limits))

    async def keep(self, lease: Lease) -> int:
        """Lets a stateless turn hold its places as long as a lease that is renewed now; returns its end."""
        return await self._store.keep(_of(lease)) + self._lease_ms

    async def keep_up(self, lease: Lease) -> None:
        """As `keep`, for a turn whose lease was renewed in its session: that holds whatever becomes of its places."""
        await self._patiently(self._store.keep(_of(lease)))

    async def free(self, lease: Lease) -> None:
        """Frees the turn's places; it stays counted. Where the store is unreachable, they run out by themselves."""
        await self._patiently(self._store.free(_of(lease)))

    async def close(self) -> None:
        """Waits until what turns did not wait for is done."""
        await asyncio.gather(*self._under_way)

    def held(self, turn: BeginTurn) -> tuple[str, ...]:
        """Returns the subjects of the limits in which the turn holds a place."""
        return tuple(limit.subject for limit in turn.limits if limit.concurrent_turns)

    def lease(self, turn: BeginTurn, taken: LimitTaken) -> Lease:
        """Returns the lease of a stateless turn."""
        return Lease(turn.key, turn.turn_id, 0, taken.now_ms + self._lease_ms, self.held(turn))

    async def _patiently(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(_quietly(work), name="limits of a turn")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.wait((task,), timeout=PATIENCE)


async def _quietly(work: Coroutine[Any, Any, object]) -> None:
    with contextlib.suppress(Exception):
        await work


def _of(lease: Lease) -> LimitedTurn:
    return LimitedTurn(lease.key.project, lease.turn_id, tuple(TurnLimit(subject) for subject in lease.limits))
