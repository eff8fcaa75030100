"""An index of turns that may have to be taken over, in a slot of its own: when to check each, and which are queued.
Like other indexes, it may be late, or contain turns that need no takeover: the session's own keys decide.
"""

from session_svc.model.errors import ProjectQueueFull
from session_svc.model.session import SessionBounds, SessionKey
from session_svc.model.turn import Lease
from session_svc.redis_client.link import Command, RedisUnavailable
from session_svc.redis_store import script_calls as calls
from session_svc.redis_store import script_replies as replies
from session_svc.redis_store.keys import WAITING_KEYS
from session_svc.redis_store.script_replies import reply_of
from session_svc.redis_store.script_runner import RedisScripts

MAX_NOTED = 10_000
"""Turns that are noted before they are written; more are found a lease later, or end by their time."""
NEVER = -1
DUE = 0


class WaitingTurns:
    """Which turns to look at, and when."""

    def __init__(self, scripts: RedisScripts, bounds: SessionBounds) -> None:
        self._scripts = scripts
        self._bounds = bounds
        self._running: set[str] = set()
        self._ended: set[str] = set()

    def command(self, lease: Lease) -> Command:
        """Returns what has the turn looked at when its lease should have ended."""
        return self._look_again(member_of(lease), self._bounds.lease_ms)

    async def note_at_once(self, lease: Lease) -> None:
        """Makes a turn that no gateway runs due now, unless it is already."""
        await self._scripts.run(("ZADD", WAITING_KEYS[0], "NX", DUE, member_of(lease)))

    def note(self, lease: Lease) -> None:
        """Runs `command`, soon."""
        if len(self._running) < MAX_NOTED:
            self._running.add(member_of(lease))

    def forget(self, lease: Lease) -> None:
        """The turn has ended, and is not looked at any more, soon."""
        member = member_of(lease)
        self._running.discard(member)
        if len(self._ended) < MAX_NOTED:
            self._ended.add(member)

    async def flush(self) -> None:
        """Writes what was noted. Raises `RedisUnavailable`: what was noted is still to be written."""
        running, ended = self._running, self._ended
        self._running, self._ended = set(), set()
        commands = [self._look_again(member, self._bounds.lease_ms) for member in running]
        if ended:
            commands.append(("ZREM", WAITING_KEYS[0], *ended))
        if not commands:
            return
        try:
            await self._scripts.run(*commands)
        except RedisUnavailable:
            self._running, self._ended = running | self._running, ended | self._ended
            raise

    async def enqueue(self, lease: Lease) -> None:
        """Puts the turn into its project's queue. Idempotent. Raises `ProjectQueueFull`."""
        project, most = lease.key.project, self._bounds.pickup.queued
        call = calls.Enqueue(member_of(lease), project, most)
        [answer] = await self._scripts.run(self._scripts.waiting_command(call))
        if type(reply_of(calls.Enqueue, answer)) is replies.QueueIsFull:
            raise ProjectQueueFull(project, most)

    async def take(self) -> tuple[bytes, int]:
        """Returns the next turn to look at, or nothing, and how many are queued; it comes again a lease later."""
        call = calls.TakeDue(self._bounds.lease_ms)
        [answer] = await self._scripts.run(self._scripts.waiting_command(call))
        due: replies.Due = reply_of(calls.TakeDue, answer)
        return due.member, due.queued

    async def count_queued(self) -> int:
        """Returns how many turns are in the queue, of all projects."""
        [count] = await self._scripts.run(("ZCARD", WAITING_KEYS[1]))
        return int(count)

    async def next_due(self) -> int | None:
        """Returns in how many milliseconds `take` has a turn, as far as is known; None where none is. Takes nothing."""
        ms: int
        [ms] = await self._scripts.run(self._scripts.waiting_command(calls.NextDue()))
        return None if ms < 0 else ms

    async def look_again(self, member: str | bytes, ms: int) -> None:
        """Has the turn looked at in `ms`, or, with `NEVER`, not any more."""
        await self._scripts.run(self._look_again(member, ms))

    def _look_again(self, member: str | bytes, ms: int) -> Command:
        # By Redis' clock, which also decides what is due: this machine's may be hours off.
        return self._scripts.waiting_command(calls.LookAgain(member, ms))


def member_of(lease: Lease) -> str:
    """Returns how the turn of a lease is written."""
    return f"{lease.key.project}|{lease.key.session_id}|{lease.turn_id}"


def turn_of(member: bytes) -> tuple[SessionKey, str] | None:
    """Returns the session and the id of a turn; None for what no turn is written as."""
    try:
        project, session_id, turn_id = member.decode().split("|")
    except ValueError:
        return None
    return SessionKey(project, session_id), turn_id
