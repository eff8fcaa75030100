"""The state that the in-memory adapters share: what Redis holds, as plain objects, and what the scripts do with it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from session_svc.model.errors import JournalFull
from session_svc.model.journal import JournalEvent, UnheardEnd
from session_svc.model.session import AgentIncarnation, Session, SessionBounds, SessionKey
from session_svc.model.turn import BeginTurn, Lease, RequestMark


class HeadedTurn(NamedTuple):
    """A serialized turn with the attributes that a window needs."""

    message_count: int
    continues: bool
    number: int
    turn: bytes

    @property
    def size(self) -> int:
        """Bytes of it."""
        return len(self.turn)


ENTRY_OVERHEAD = 64


@dataclass(slots=True)
class Ticket:
    """A place in a session's queue; over 0, `reserved_ms` is until when the lease is kept for it."""

    turn_id: str
    waiter_id: str
    deadline_ms: int
    reserved_ms: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of a request: the number of its turn."""

    number: int
    expire_ms: int
    digest: bytes


@dataclass(slots=True)
class Pickup:
    """What another gateway may do with a turn: its session waits `ms` for that behind its lease."""

    ms: int
    attempt: int = 1
    lost: int = 0
    released: bool = False
    cancelled: bool = False


@dataclass(slots=True)
class Stored:
    """A session with its turns and its lease. `new` until its first turn is committed: then it has none to keep."""

    session: Session
    token: int = 0
    turn_id: str = ""
    until_ms: int = 0
    waiter_id: str = ""
    new: bool = False
    request: RequestMark | None = None
    done: str = ""
    interrupted: list[int] = field(default_factory=list)
    turns: list[HeadedTurn] = field(default_factory=list)
    leases: list[tuple[int, str]] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    pickup: Pickup | None = None


@dataclass(slots=True)
class Journal:
    """What one turn has done; over 0, `ended_ms` is when it ended."""

    user_id: str
    token: int
    sequence: int = 0
    size: int = 0
    ended_ms: int = 0
    request: bytes = b""
    """What another gateway needs to go on with the turn."""
    events: list[JournalEvent] = field(default_factory=list)

    def add(self, token: int, event: JournalEvent) -> None:
        """Adds an event under the token, whose id it gets."""
        if self.token != token:
            self.token, self.sequence = token, 0
        self.sequence += 1
        self.size += len(event.data) + ENTRY_OVERHEAD
        self.events.append(replace(event, id=f"1-{len(self.events) + 1}"))


Waiting = tuple[SessionKey, str]
"""A turn that a gateway may have to take over."""


class MemoryState:
    """All sessions of a process, with a clock that tests may set."""

    def __init__(self, limits: SessionBounds, clock: Callable[[], int] | None = None) -> None:
        self.limits = limits
        self.now: Callable[[], int] = clock or (lambda: int(time.time() * 1000))
        self.sessions: dict[SessionKey, Stored] = {}
        self.order: dict[SessionKey, int] = {}
        self.queues: dict[SessionKey, list[Ticket]] = {}
        self.fences: set[tuple[str, str]] = set()
        self.agents: dict[AgentIncarnation, None] = {}
        self.cursor = ""
        self.wakeups: dict[str, asyncio.Event] = {}
        self.journals: dict[SessionKey, dict[str, Journal]] = {}
        self.watchers: dict[SessionKey, set[str]] = {}
        self.running: dict[Waiting, int] = {}
        """When to look at each turn."""
        self.queued: dict[Waiting, int] = {}
        """The places of those that have not run yet."""
        self.parents: dict[SessionKey, SessionKey] = {}
        """The session that each one hangs on."""

    def load(self, key: SessionKey) -> Stored | None:
        """Returns the session; None, and nothing of it left, when it is dead."""
        stored, now = self.sessions.get(key), self.now()
        if stored is None:
            return None
        if not self.held(stored) and (stored.new or stored.session.expire_ms <= now):
            if stored.new:  # whoever watches its turn is still to learn how it ended
                self.sessions.pop(key)
                self.end_unheard(key, stored.turn_id, UnheardEnd.LOST)
            else:
                self.remove(key)
            return None
        return stored

    def held(self, stored: Stored | None) -> bool:
        """Whether a turn has the session: its lease, or the time in which another gateway may take it over."""
        return stored is not None and self.busy_until(stored) > self.now()

    def busy_until(self, stored: Stored) -> int:
        """Returns until when the session waits for its turn."""
        return stored.until_ms + (stored.pickup.ms if stored.pickup is not None else 0)

    def holds(self, stored: Stored | None, lease: Lease) -> bool:
        """Whether this lease is the one that is held."""
        return (
            stored is not None and self.held(stored) and (stored.token, stored.turn_id) == (lease.token, lease.turn_id)
        )

    def remove(self, key: SessionKey) -> None:
        """Removes a session; who waits for it goes on waiting."""
        self.sessions.pop(key, None)
        self.journals.pop(key, None)

    def keep_children(self, parent: SessionKey, expire_ms: int) -> None:
        """Lets all that hangs on a session, and on that, end at this time."""
        for key in [key for key, one in self.parents.items() if one == parent]:
            stored = self.load(key)
            if stored is not None and not stored.new:
                session = stored.session
                self.change(stored, expire_ms=min(expire_ms, session.created_ms + session.lifetime_ms))
                self.keep_children(key, expire_ms)

    def touch(self, key: SessionKey, agent_id: str, agent_uid: str) -> None:
        """Moves a session to the front of the lists, before it exists."""
        self.order[key] = self.now()
        self.agents[AgentIncarnation(key.project, agent_id, agent_uid)] = None

    def add(self, key: SessionKey, turn: BeginTurn) -> Stored:
        """Makes the session that a turn begins."""
        now = self.now()
        session = Session(
            key=key,
            agent_id=turn.agent_id,
            agent_uid=turn.agent_uid,
            user_id=turn.user_id,
            created_ms=now,
            activity_ms=now,
            idle_ms=turn.idle_ms,
            lifetime_ms=turn.lifetime_ms,
            expire_ms=now + min(turn.idle_ms, turn.lifetime_ms),
            metadata=dict(turn.metadata),
        )
        stored = self.sessions[key] = Stored(session, new=True)
        return stored

    def first_waiter(self, key: SessionKey) -> Ticket | None:
        """Returns the first ticket that still counts."""
        queue, now = self.queues.get(key, []), self.now()
        while queue:
            ticket = queue[0]
            if ticket.deadline_ms > now and (ticket.reserved_ms == 0 or ticket.reserved_ms > now):
                return ticket
            queue.pop(0)
        return None

    def hand_over(self, key: SessionKey) -> int:
        """Reserves the free lease for the first waiter; returns until when, 0 when nobody waits."""
        ticket = self.first_waiter(key)
        if ticket is None:
            return 0
        if ticket.reserved_ms == 0:
            ticket.reserved_ms = self.now() + self.limits.claim_ms
            self.wake(ticket.waiter_id)
        return ticket.reserved_ms

    def wake(self, waiter_id: str) -> None:
        """Wakes a waiter, also before it waits."""
        self.wakeups.setdefault(waiter_id, asyncio.Event()).set()

    def wake_watchers(self, key: SessionKey) -> None:
        """Wakes those who wait for an event of a journal."""
        for waiter_id in self.watchers.pop(key, ()):
            self.wake(waiter_id)

    def add_events(
        self, stored: "Stored", lease: Lease, first: int, new: tuple[bytes, ...], request: bytes = b""
    ) -> str:
        """Adds those that are not there yet to the journal of a held lease; returns the id of the last."""
        journals, bounds = self.journals.setdefault(lease.key, {}), self.limits.journal
        for turn_id, old in list(journals.items()):
            if turn_id != lease.turn_id and 0 < old.ended_ms <= self.now() - bounds.keep_ms:
                del journals[turn_id]
        journal = journals.setdefault(lease.turn_id, Journal(stored.session.user_id, lease.token))
        known = journal.sequence if journal.token == lease.token else 0
        events = new[max(known - first + 1, 0) :]
        added = sum(len(event) + ENTRY_OVERHEAD for event in events)
        for turn_id in [turn_id for turn_id in journals if turn_id != lease.turn_id]:
            if sum(one.size for one in journals.values()) + added > bounds.max_bytes:
                del journals[turn_id]
        if sum(one.size for one in journals.values()) + added > bounds.max_bytes:
            raise JournalFull(lease.turn_id, bounds.max_bytes)
        if request and not journal.events:
            journal.request, stored.pickup = request, Pickup(self.limits.pickup.wait_ms)
        for event in events:
            journal.add(lease.token, JournalEvent("", event))
        return journal.events[-1].id

    def end_journal(self, lease: Lease, event: JournalEvent, *, is_held: bool) -> None:
        """Ends the journal of a lease that is held, or was the last to write there, where an end is given."""
        journal = self.journals.get(lease.key, {}).get(lease.turn_id)
        is_last = is_held or (journal is not None and journal.token == lease.token)
        if event.data and journal is not None and is_last and not journal.ended_ms:
            journal.add(lease.token, event)
            journal.ended_ms = self.now()
            self.wake_watchers(lease.key)

    def end_unheard(self, key: SessionKey, turn_id: str, why: UnheardEnd) -> None:
        """Ends the journal of a turn that no gateway ends, where it has one."""
        journal = self.journals.get(key, {}).get(turn_id)
        if journal is not None and not journal.ended_ms:
            journal.add(journal.token, JournalEvent("", b"", unheard=why))
            journal.ended_ms = self.now()
            self.wake_watchers(key)

    def release(self, key: SessionKey, stored: Stored) -> None:
        """Frees the lease and lets the next one have it."""
        stored.turn_id, stored.until_ms, stored.waiter_id, stored.request, stored.new = "", 0, "", None, False
        stored.pickup = None
        self.hand_over(key)

    def undo(self, key: SessionKey, stored: Stored) -> None:
        """Ends a turn that stores nothing: a session that was made for it goes again."""
        if stored.new:
            self.sessions.pop(key, None)
            self.hand_over(key)
        else:
            self.release(key, stored)

    def take_ticket(self, key: SessionKey, *, turn_id: str = "", waiter_id: str = "") -> Ticket | None:
        """Takes a turn's or a waiter's ticket out of the queue."""
        for ticket in self.queues.get(key, []):
            if (turn_id and ticket.turn_id == turn_id) or (waiter_id and ticket.waiter_id == waiter_id):
                self.queues[key].remove(ticket)
                return ticket
        return None

    def give_up(self, key: SessionKey, *, turn_id: str = "", waiter_id: str = "") -> None:
        """Gives up a ticket; a lease that was reserved for it goes to the next."""
        ticket = self.take_ticket(key, turn_id=turn_id, waiter_id=waiter_id)
        if ticket is not None and ticket.reserved_ms:
            self.hand_over(key)

    def change(self, stored: Stored, **fields: object) -> Session:
        """Changes fields of a session and returns it as it is now."""
        stored.session = replace(stored.session, **fields)  # type: ignore[arg-type]
        return stored.session
