"""Turns to be taken over, in Redis."""

import asyncio
import time
from typing import Any

import structlog

from session_svc.model.errors import (
    LeaseLost,
    SessionBusy,
    SessionDamaged,
    TurnCancelled,
    TurnInterrupted,
    TurnNotFound,
)
from session_svc.model.journal import ClaimedTurn, TurnProgress, TurnStage, TurnWatch
from session_svc.model.session import SessionBounds, SessionKey
from session_svc.model.turn import Lease
from session_svc.redis_client.link import RedisUnavailable, Reply
from session_svc.redis_store import script_calls as calls
from session_svc.redis_store import script_replies as replies
from session_svc.redis_store.journal import event_of
from session_svc.redis_store.script_replies import reply_of
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.waiting_turns import NEVER, WaitingTurns, member_of, turn_of

MAX_LOOKS = 20
"""Turns that one claim examines; those that it can't take over are examined again later."""
COUNT_SECONDS = 5.0
"""How often queued turns are counted where none is claimed."""


log = structlog.get_logger(__name__)


class RedisClaims:
    """The `ClaimStore` on Redis."""

    def __init__(self, scripts: RedisScripts, bounds: SessionBounds, waiting: WaitingTurns) -> None:
        self._scripts = scripts
        self._bounds = bounds
        self._waiting = waiting
        self.queued = 0
        """Turns that had not run yet when they were last counted: with each claim here, and every few seconds."""
        self._count_at = 0.0

    async def hand_over(self, lease: Lease, *, queued: bool) -> None:
        if queued:
            await self._waiting.enqueue(lease)
        pickup = self._bounds.pickup
        call = calls.HandOver(
            token=lease.token,
            turn_id=lease.turn_id,
            wait_ms=pickup.queue_ms if queued else pickup.wait_ms,
            queued=int(queued),
        )
        answer = await self._run(lease.key, call)
        match reply_of(calls.HandOver, answer):
            case replies.HandedOver():
                # A queued turn keeps its place, unless it was examined before its lease was free.
                await self._waiting.look_again(member_of(lease), 0)
                return
            case replies.Interrupted():
                raise TurnInterrupted(lease.key.session_id)
            case replies.Cancelled():
                raise TurnCancelled(lease.key.session_id)
        if queued:  # a turn that was taken over since is looked at as before
            await self._waiting.look_again(member_of(lease), NEVER)
        raise LeaseLost(lease.key.session_id)

    async def claim(self) -> ClaimedTurn | None:
        for _ in range(MAX_LOOKS):
            member, self.queued = await self._waiting.take()
            if not member:
                return None
            turn = turn_of(member)
            if turn is None:
                log.error("waiting_turn_unreadable")
                await self._waiting.look_again(member, NEVER)
                continue
            key, turn_id = turn
            # Not repeated: a lease taken without a reply expires.
            ends = time.monotonic() + self._bounds.lease_ms / 1000
            try:
                [answer] = await self._scripts.run(self._scripts.command(key, self._claim(turn_id)))
            except SessionDamaged:
                await self._waiting.look_again(member, NEVER)
                continue
            match reply_of(calls.Claim, answer):
                case replies.Claimed(token, expire_ms, attempt, request):
                    return ClaimedTurn(Lease(key, turn_id, token, expire_ms, ends=ends), request, attempt)
                case replies.StillHeld(ms):
                    await self._waiting.look_again(member, ms)
                case _:
                    await self._waiting.look_again(member, NEVER)
        return None

    async def next_due(self) -> float | None:
        ms = await self._waiting.next_due()
        return None if ms is None else ms / 1000

    async def cancel(self, watch: TurnWatch) -> bool:
        reply = await self._cancel(watch)
        ended = type(reply) is replies.Ended
        if ended:
            await self._waiting.look_again(member_of(Lease(watch.key, watch.turn_id, 0)), NEVER)
        return ended

    async def cancel_waiting(self, watch: TurnWatch) -> None:
        reply = await self._cancel(watch, waiting=True)
        if type(reply) is replies.Busy:
            raise SessionBusy(watch.key.session_id, reply.ms / 1000)

    async def _cancel(self, watch: TurnWatch, *, waiting: bool = False) -> Any:
        journal, limits = self._bounds.journal, self._bounds
        call = calls.Cancel(watch.turn_id, watch.user_id, journal.keep_ms, limits.claim_ms, int(waiting))
        reply = reply_of(calls.Cancel, await self._run(watch.key, call))
        if type(reply) is replies.Missing:
            raise TurnNotFound(watch.turn_id)
        return reply

    async def progress(self, watch: TurnWatch, *, with_request: bool = False) -> TurnProgress:
        call = calls.TurnState(watch.turn_id, watch.user_id, int(with_request))
        reply = reply_of(calls.TurnState, await self._run(watch.key, call))
        if type(reply) is not replies.StateRead:
            raise TurnNotFound(watch.turn_id)
        if reply.state == TurnStage.RUNNING.value and not reply.held:
            await self._waiting.note_at_once(Lease(watch.key, watch.turn_id, 0))
        stage, events = TurnStage(reply.state), [event_of(*entry) for entry in reply.entries]
        ended = events.pop() if stage is TurnStage.ENDED and len(events) > 1 else None
        return TurnProgress(stage, reply.attempt, events[0] if events else None, ended, reply.request)

    async def keep_up(self) -> None:
        await self._waiting.flush()
        now = asyncio.get_running_loop().time()
        if now >= self._count_at:  # gateways that are full claim nothing, just when turns queue up
            self._count_at = now + COUNT_SECONDS
            self.queued = await self._waiting.count_queued()

    def _claim(self, turn_id: str) -> calls.Claim:
        bounds = self._bounds
        return calls.Claim(
            turn_id=turn_id,
            lease_ms=bounds.lease_ms,
            pickup_ms=bounds.pickup.wait_ms,
            max_lost=bounds.pickup.max_lost,
            keep_ms=bounds.journal.keep_ms,
            claim_ms=bounds.claim_ms,
        )

    async def _run(self, key: SessionKey, call: calls.SessionCall) -> Reply:
        command = self._scripts.command(key, call)
        try:
            [answer] = await self._scripts.run(command)
        except RedisUnavailable:
            [answer] = await self._scripts.run(command)
        return answer
