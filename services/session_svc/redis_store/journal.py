"""Journals of turns in Redis: a stream beside the session, in its slot."""

import json
from collections.abc import Sequence

from session_svc.model.errors import (
    JournalFull,
    LeaseLost,
    SessionDamaged,
    TurnCancelled,
    TurnInterrupted,
    TurnNotFound,
)
from session_svc.model.journal import JournalEvent, JournalPage, NewEvents, TurnWatch, UnheardEnd
from session_svc.model.session import SessionBounds
from session_svc.model.turn import Lease
from session_svc.redis_client.link import Command, RedisFault, RedisUnavailable, Reply
from session_svc.redis_store import script_calls as calls
from session_svc.redis_store import script_replies as replies
from session_svc.redis_store.script_replies import reply_of
from session_svc.redis_store.script_runner import RedisScripts
from session_svc.redis_store.waiting_turns import WaitingTurns
from session_svc.redis_store.wakeups import RedisWakes

PAGE_EVENTS = 256
PAGE_BYTES = 256 * 1024
MAX_WATCHERS = 64
"""Those of one session that are woken by what is added; more see it when they look again."""


class RedisJournals:
    """The `JournalStore` on Redis."""

    def __init__(self, scripts: RedisScripts, wakes: RedisWakes, bounds: SessionBounds, waiting: WaitingTurns) -> None:
        self._scripts = scripts
        self._wakes = wakes
        self._bounds = bounds.journal
        self._pickup_ms = bounds.pickup.wait_ms
        self._waiting = waiting

    def new_waiter_id(self) -> str:
        return self._wakes.new_waiter_id()

    async def wait_for_wakeup(self, waiter_id: str, timeout: float) -> None:
        await self._wakes.wait(waiter_id, timeout)

    async def append(self, new: NewEvents) -> str:
        lease, bounds = new.lease, self._bounds
        call = calls.AppendEvents(
            token=lease.token,
            turn_id=lease.turn_id,
            first=new.first,
            keep_ms=bounds.keep_ms,
            max_bytes=bounds.max_bytes,
            pickup_ms=self._pickup_ms,
            request=new.request,
            calls=json.dumps([new.begun_calls, new.denied_calls]) if new.begun_calls or new.denied_calls else "",
        )
        command = self._scripts.command(lease.key, call, *new.events)
        answer = await (self._begun(lease, command) if new.request else self._added(command))
        match reply_of(calls.AppendEvents, answer):
            case replies.EventsAdded(event_id):
                return event_id.decode()
            case replies.JournalFull():
                raise JournalFull(lease.turn_id, bounds.max_bytes)
            case replies.Interrupted():
                raise TurnInterrupted(lease.key.session_id)
            case replies.Cancelled():
                raise TurnCancelled(lease.key.session_id)
        raise LeaseLost(lease.key.session_id)

    async def _begun(self, lease: Lease, command: Command) -> Reply:
        """Notes first that the turn is to be looked at when its lease should have ended, in the same round trip. Where
        that can't be written, the turn's renewals note it.
        """
        try:
            _, answer = await self._scripts.run_in_order([self._waiting.command(lease)], [command])
        except (RedisUnavailable, RedisFault):
            self._waiting.note(lease)
            return await self._added(command)
        return answer

    async def _added(self, command: Command) -> Reply:
        try:
            [answer] = await self._scripts.run(command)
        except RedisUnavailable:
            [answer] = await self._scripts.run(command)
        return answer

    async def read(self, watch: TurnWatch, waiter_id: str) -> JournalPage:
        call = calls.ReadEvents(
            turn_id=watch.turn_id,
            user=watch.user_id,
            after=watch.after,
            waiter_id=waiter_id,
            max_events=PAGE_EVENTS,
            max_bytes=PAGE_BYTES,
            max_watchers=MAX_WATCHERS,
        )
        [answer] = await self._scripts.run(self._scripts.command(watch.key, call))
        reply = reply_of(calls.ReadEvents, answer)
        if type(reply) is not replies.EventsRead:
            raise TurnNotFound(watch.turn_id)
        return JournalPage(tuple(event_of(*entry) for entry in reply.entries), bool(reply.ended), bool(reply.held))


def event_of(entry_id: bytes, fields: Sequence[bytes]) -> JournalEvent:
    """Returns an entry of the stream. Raises `SessionDamaged` for one that no script wrote."""
    try:
        held = dict(zip(fields[::2], fields[1::2], strict=True))
        why = UnheardEnd(held[b"w"].decode()) if b"w" in held else None
        return JournalEvent(entry_id.decode(), held[b"e"], int(held.get(b"n", 0)), int(held.get(b"x", 0)), why)
    except (KeyError, ValueError):
        raise SessionDamaged from None
