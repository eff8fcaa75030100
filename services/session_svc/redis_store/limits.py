"""Limits in Redis. The keys of one limit share a slot; several limits of one turn may lie in several."""

from collections.abc import Sequence
from typing import NoReturn

from session_svc.model.errors import LimitQueueFull, RateLimited
from session_svc.model.limits import LimitedTurn, LimitState, LimitTaken, LimitTimes, LimitWait, TurnLimit
from session_svc.redis_client.link import RedisUnavailable, Reply
from session_svc.redis_store import script_calls as calls
from session_svc.redis_store import script_replies as replies
from session_svc.redis_store.script_replies import reply_of
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.wakeups import RedisWakes


class RedisLimits:
    """The `LimitStore` on Redis. Each method is one round trip; a turn that is refused costs a second one."""

    def __init__(self, scripts: RedisScripts, wakes: RedisWakes, times: LimitTimes) -> None:
        self._scripts = scripts
        self._wakes = wakes
        self._times = times

    async def take(self, turn: LimitedTurn, waiter_id: str, *, wait: bool, counted: bool) -> LimitTaken | LimitWait:
        times = self._times
        answers = await self._run(
            turn,
            [
                calls.LimitTake(
                    turn=turn.turn_id,
                    waiter_id=waiter_id,
                    a_minute=limit.requests_per_minute,
                    at_once=limit.concurrent_turns,
                    hold_ms=times.hold_ms,
                    stand_ms=times.stand_ms if wait and limit.wait else 0,
                    places=times.places,
                    counted=int(counted),
                )
                for limit in turn.limits
            ],
        )
        answered = [reply_of(calls.LimitTake, answer) for answer in answers]
        for limit, reply in zip(turn.limits, answered, strict=True):
            if not isinstance(reply, replies.Granted | replies.LimitWaits):
                await self.roll_back(turn)
                _refuse(limit, times.places, reply)
        states = tuple(
            LimitState(limit.subject, limit.requests_per_minute, reply.remaining, reply.reset_ms)
            for limit, reply in zip(turn.limits, answered, strict=True)
            if limit.requests_per_minute
        )
        check_ins = [reply.check_in_ms for reply in answered if isinstance(reply, replies.LimitWaits)]
        return LimitWait(min(check_ins)) if check_ins else LimitTaken(states, answered[0].now_ms)

    async def keep(self, turn: LimitedTurn) -> int:
        keep = calls.LimitKeep(turn=turn.turn_id, hold_ms=self._times.hold_ms)
        answered = await self._run(turn, [keep] * len(turn.limits))
        return int(answered[0])

    async def free(self, turn: LimitedTurn) -> None:
        await self._run(turn, [calls.LimitFree(turn=turn.turn_id, uncount=0)] * len(turn.limits))

    async def roll_back(self, turn: LimitedTurn) -> None:
        await self._run(turn, [calls.LimitFree(turn=turn.turn_id, uncount=1)] * len(turn.limits))

    async def wait_for_wakeup(self, waiter_id: str, timeout: float) -> None:
        await self._wakes.wait(waiter_id, timeout)

    async def _run(self, turn: LimitedTurn, wanted: Sequence[calls.LimitCall]) -> list[Reply]:
        commands = [
            self._scripts.limit_command(turn.project, limit.subject, call)
            for limit, call in zip(turn.limits, wanted, strict=True)
        ]
        # Retried once after a broken connection: every script is idempotent.
        try:
            return await self._scripts.run(*commands)
        except RedisUnavailable:
            return await self._scripts.run(*commands)


def _refuse(limit: TurnLimit, places: int, reply: replies.OverRate | replies.Refused | replies.LimitIsFull) -> NoReturn:
    match reply:
        case replies.OverRate(_, retry_ms, reset_ms):
            raise RateLimited.by_requests(limit.subject, limit.requests_per_minute, retry_ms / 1000, reset_ms / 1000)
        case replies.LimitIsFull(_, retry_ms):
            raise LimitQueueFull(limit.subject, places, retry_ms / 1000)
        case replies.Refused(_, retry_ms):
            raise RateLimited.by_turns(limit.subject, limit.concurrent_turns, retry_ms / 1000)
