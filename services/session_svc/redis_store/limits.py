"""Limits in Redis. The keys of one limit share a slot; several limits of one turn may lie in several."""

from collections.abc import Sequence
from typing import NoReturn

from session_svc.model.errors import LimitQueueFull, RateLimited
from session_svc.model.limits import LimitedTurn, LimitState, LimitTaken, LimitTimes, LimitWait, TurnLimit
from session_svc.redis_client.link import Command, RedisUnavailable, Reply
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.wakeups import RedisWakes


class RedisLimits:
    """The `LimitStore` on Redis. Each method is one round trip; a turn that is refused costs a second one."""

    def __init__(self, scripts: RedisScripts, wakes: RedisWakes, times: LimitTimes) -> None:
        self._scripts = scripts
        self._wakes = wakes
        self._times = times

    async def take(self, turn: LimitedTurn, call: str, *, wait: bool, counted: bool) -> LimitTaken | LimitWait:
        times = self._times
        replies = await self._run(
            [
                self._command(
                    "limit_take",
                    turn,
                    limit.subject,
                    call,
                    limit.requests_per_minute,
                    limit.concurrent_turns,
                    times.hold_ms,
                    times.stand_ms if wait and limit.wait else 0,
                    times.places,
                    "1" if counted else "0",
                )
                for limit in turn.limits
            ]
        )
        for limit, reply in zip(turn.limits, replies, strict=True):
            if reply[0] not in (b"ok", b"wait"):
                await self.give_back(turn)
                _refuse(limit, times.places, reply)
        states = tuple(
            LimitState(limit.subject, limit.requests_per_minute, reply[2], reply[3])
            for limit, reply in zip(turn.limits, replies, strict=True)
            if limit.requests_per_minute
        )
        check_ins = [reply[4] for reply in replies if reply[0] == b"wait"]
        return LimitWait(min(check_ins)) if check_ins else LimitTaken(states, replies[0][1])

    async def keep(self, turn: LimitedTurn) -> int:
        replies = await self._run(
            [self._command("limit_keep", turn, limit.subject, self._times.hold_ms) for limit in turn.limits]
        )
        return int(replies[0])

    async def free(self, turn: LimitedTurn) -> None:
        await self._run([self._command("limit_free", turn, limit.subject, "0") for limit in turn.limits])

    async def give_back(self, turn: LimitedTurn) -> None:
        await self._run([self._command("limit_free", turn, limit.subject, "1") for limit in turn.limits])

    async def woken(self, call: str, timeout: float) -> None:
        await self._wakes.wait(call, timeout)

    def _command(self, name: str, turn: LimitedTurn, subject: str, *arguments: str | int) -> Command:
        return self._scripts.limit_command(name, turn.project, subject, turn.turn_id, *arguments)

    async def _run(self, commands: Sequence[Command]) -> list[Reply]:
        # Once more after a connection broke: every script repeated is what it was the first time.
        try:
            return await self._scripts.run(*commands)
        except RedisUnavailable:
            return await self._scripts.run(*commands)


def _refuse(limit: TurnLimit, places: int, reply: Sequence[Reply]) -> NoReturn:
    match reply[0]:
        case b"rate":
            raise RateLimited.by_requests(limit.subject, limit.requests_per_minute, reply[2] / 1000, reply[3] / 1000)
        case b"crowded":
            raise LimitQueueFull(limit.subject, places, reply[2] / 1000)
    raise RateLimited.by_turns(limit.subject, limit.concurrent_turns, reply[2] / 1000)
