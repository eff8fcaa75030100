"""Limits in memory: the twin of the Redis adapter, for tests and as the shortest statement of what the scripts do."""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from session_svc.model.errors import LimitQueueFull, RateLimited
from session_svc.model.limits import LimitedTurn, LimitState, LimitTaken, LimitTimes, LimitWait, TurnLimit

_MINUTE = 60_000
_SOON = 1.0


@dataclass(slots=True)
class _Counted:
    """One limit: when turns began, until when they hold a place, and who waits (since when, until when)."""

    begun: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    queue: dict[str, tuple[str, int]] = field(default_factory=dict)


class MemoryLimits:
    """The `LimitStore` in memory; `clock` is in milliseconds, the others are those of the turn store."""

    def __init__(
        self,
        times: LimitTimes,
        clock: Callable[[], int],
        wake: Callable[[str], None],
        wait_for_wakeup: Callable[[str, float], Awaitable[None]],
    ) -> None:
        self._times = times
        self._clock = clock
        self._wake = wake
        self._wait_for_wakeup = wait_for_wakeup
        self._limits: dict[tuple[str, str], _Counted] = defaultdict(_Counted)

    async def take(self, turn: LimitedTurn, waiter_id: str, *, wait: bool, counted: bool) -> LimitTaken | LimitWait:
        try:
            check_ins = [self._take(turn, limit, waiter_id, wait and limit.wait, counted) for limit in turn.limits]
        except (RateLimited, LimitQueueFull):
            await self.roll_back(turn)
            raise
        waits = [check_in for check_in in check_ins if check_in is not None]
        if waits:
            return LimitWait(min(waits))
        states = tuple(self._state(turn, limit) for limit in turn.limits if limit.requests_per_minute)
        return LimitTaken(states, self._clock())

    def _take(self, turn: LimitedTurn, limit: TurnLimit, waiter_id: str, wait: bool, counted: bool) -> int | None:
        one, now, turn_id = self._current(turn.project, limit.subject), self._clock(), turn.turn_id
        known = counted or turn_id in one.held or turn_id in one.queue or turn_id in one.begun
        a_minute = limit.requests_per_minute
        if a_minute and not known and len(one.begun) >= a_minute:
            begun = sorted(one.begun.values())
            free_at = begun[len(begun) - a_minute] + _MINUTE
            raise RateLimited.by_requests(
                limit.subject, a_minute, (free_at - now) / 1000, (begun[-1] + _MINUTE - now) / 1000
            )
        check_in = None
        if limit.concurrent_turns and turn_id not in one.held:
            check_in = self._hold_or_wait(one, turn_id, limit, waiter_id, wait)
        if limit.concurrent_turns and check_in is None:
            one.held[turn_id] = now + self._times.hold_ms
        if a_minute and not known:
            one.begun[turn_id] = now
        return check_in

    def _hold_or_wait(self, one: _Counted, turn_id: str, limit: TurnLimit, waiter_id: str, wait: bool) -> int | None:
        times, now = self._times, self._clock()
        before = list(one.queue).index(turn_id) if turn_id in one.queue else len(one.queue)
        if before < limit.concurrent_turns - len(one.held):
            one.queue.pop(turn_id, None)
            return None
        if not wait:
            raise RateLimited.by_turns(limit.subject, limit.concurrent_turns, _SOON)
        if turn_id not in one.queue and before >= times.places:
            raise LimitQueueFull(limit.subject, times.places, _SOON)
        one.queue[turn_id] = (waiter_id, now + times.stand_ms)
        return min(min(one.held.values(), default=now + times.stand_ms) - now, times.stand_ms // 2)

    def _state(self, turn: LimitedTurn, limit: TurnLimit) -> LimitState:
        begun = self._current(turn.project, limit.subject).begun
        reset = max(begun.values(), default=self._clock() - _MINUTE) + _MINUTE - self._clock()
        a_minute = limit.requests_per_minute
        return LimitState(limit.subject, a_minute, max(a_minute - len(begun), 0), reset)

    async def keep(self, turn: LimitedTurn) -> int:
        now = self._clock()
        for limit in turn.limits:
            held = self._current(turn.project, limit.subject).held
            if turn.turn_id in held:
                held[turn.turn_id] = now + self._times.hold_ms
        return now

    async def free(self, turn: LimitedTurn) -> None:
        for limit in turn.limits:
            one = self._current(turn.project, limit.subject)
            held, queued = one.held.pop(turn.turn_id, None), one.queue.pop(turn.turn_id, None)
            if held or queued:
                self._wake_first(one)

    async def roll_back(self, turn: LimitedTurn) -> None:
        await self.free(turn)
        for limit in turn.limits:
            self._current(turn.project, limit.subject).begun.pop(turn.turn_id, None)

    async def wait_for_wakeup(self, waiter_id: str, timeout: float) -> None:
        await self._wait_for_wakeup(waiter_id, timeout)

    def _wake_first(self, one: _Counted) -> None:
        for turn_id, (waiter_id, until) in one.queue.items():
            if waiter_id:
                one.queue[turn_id] = ("", until)
                self._wake(waiter_id)
                return

    def _current(self, project: str, subject: str) -> _Counted:
        one, now = self._limits[project, subject], self._clock()
        one.begun = {turn: at for turn, at in one.begun.items() if at > now - _MINUTE}
        one.held = {turn: until for turn, until in one.held.items() if until > now}
        one.queue = {turn: place for turn, place in one.queue.items() if place[1] > now}
        return one
