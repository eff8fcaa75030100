"""The ports of session_svc: its stores, config_svc's feed of agents, and its audit log.

Any method of a store may raise `servicekit.errors.Unavailable` while the store is unreachable. A write may then have
happened or not; each method says how a repeat behaves.
"""

import enum
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from session_svc.model.journal import ClaimedTurn, JournalPage, NewEvents, TurnProgress, TurnWatch
from session_svc.model.limits import LimitedTurn, LimitTaken, LimitWait
from session_svc.model.push import PushConfig, PushTurn
from session_svc.model.session import (
    AgentIncarnation,
    Fork,
    ListPosition,
    NewSession,
    Purge,
    Removed,
    Session,
    SessionChange,
    SessionKey,
    SessionPage,
    SessionQuery,
)
from session_svc.model.turn import (
    BeginTurn,
    Begun,
    Committed,
    CommitTurn,
    Joined,
    KeptContent,
    Lease,
    PartContent,
    Replayed,
    TurnPage,
    TurnQuery,
    Waiting,
)


class TurnStore(Protocol):
    """Turns: begun under a lease, committed atomically, one at a time in a session."""

    def new_waiter_id(self) -> str:
        """Returns an id for one call of BeginTurn that may wait, by which it is woken, and what it got released."""

    async def begin(self, turn: BeginTurn, waiter_id: str, wait_ms: int) -> Begun | Replayed | Joined | Waiting:
        """Takes the lease, or a place in the session's queue for `wait_ms` (`BusyPolicy.WAIT`, and over 0).

        A repeat with the same turn id gets the lease or the place that the first try got. Creates the session if it
        does not exist. Raises `SessionNotFound`, `SessionAgentMismatch`, `AgentDeleted`, `SessionBusy`,
        `TurnQueueFull`, `IdempotencyKeyReused`, `SessionFull`.
        """

    async def replayed(self, turn: BeginTurn) -> Replayed | None:
        """Returns what `begin` would replay; None for a turn that has not run. Changes nothing."""

    async def wait_for_wakeup(self, waiter_id: str, timeout: float) -> None:
        """Returns when the waiter may continue, or after `timeout` seconds. May return early: call `begin` again."""

    async def leave(self, key: SessionKey, waiter_id: str) -> None:
        """Releases what the waiter got, be it a place or a lease. Idempotent."""

    async def renew(self, lease: Lease, waiter_id: str = "") -> Lease:
        """Extends the lease; `waiter_id`, where given, is woken when it is lost.

        Raises `LeaseLost`, `TurnInterrupted`, `TurnCancelled`.
        """

    async def commit(self, commit: CommitTurn) -> Committed:
        """Stores the turn and frees the lease, both or neither. A repeat answers the same and stores nothing.

        Raises `LeaseLost`, `TurnInterrupted`, `JournalFull`, `SessionFull`, `SessionPartsFull`: nothing of the turn is
        stored then.
        """

    async def abort(self, lease: Lease, end_event: bytes = b"") -> None:
        """Frees the lease if it is still held, and removes a session that was created for the turn and has no committed
        one.

        `end_event` ends the turn's journal, where it has one. A token of 0 stands for whatever token the turn has, and
        removes the turn from the queue, too.
        """


class PartStore(Protocol):
    """The contents kept beside turns."""

    async def read(self, key: SessionKey, wanted: Sequence[KeptContent]) -> list[PartContent]:
        """Returns them in this order, without those that the session no longer has.

        Raises `SessionNotFound`; `TurnDamaged` for one that is missing without having been removed.
        """


class JournalStore(Protocol):
    """The journals of running turns."""

    def new_waiter_id(self) -> str:
        """Returns an id for one watch, by which it is woken."""

    async def append(self, new: NewEvents) -> str:
        """Adds the events in order and returns the id of the last; those that are there already are not added again.

        Raises `LeaseLost`, `TurnInterrupted`, `TurnCancelled`, `JournalFull`: none is added then.
        """

    async def read(self, watch: TurnWatch, waiter_id: str) -> JournalPage:
        """Returns a page; if it is empty and the turn is running, `waiter_id` is woken by the next entry.

        Raises `TurnNotFound`, also where the session is another user's.
        """

    async def wait_for_wakeup(self, waiter_id: str, timeout: float) -> None:
        """As `TurnStore.wait_for_wakeup`."""


class ClaimStore(Protocol):
    """Turns that gateways can take over, and the states of turns."""

    async def hand_over(self, lease: Lease, *, queued: bool) -> None:
        """Releases the lease for another gateway; the session stays the turn's. Idempotent, for a queued turn even if
        another gateway has taken it since.

        Raises `LeaseLost`, `TurnInterrupted`, `TurnCancelled`; `ProjectQueueFull` where it is to be queued.
        """

    async def claim(self) -> ClaimedTurn | None:
        """Takes over a turn that no gateway runs; None if none was found immediately."""

    async def next_due(self) -> float | None:
        """Returns in how many seconds a turn may be taken over, 0 for now; None if none is known. Changes nothing.

        Earlier if another turn is handed over meanwhile, and later if the turn's gateway renews its lease.
        """

    async def cancel(self, watch: TurnWatch) -> bool:
        """Ends the turn, or asks its gateway to; returns whether it has ended. Raises `TurnNotFound`."""

    async def cancel_waiting(self, watch: TurnWatch) -> None:
        """Records that the pending calls of the session's newest turn will not be answered. Idempotent.

        Raises `TurnNotFound`, also for another turn, and `SessionBusy` while one is under way.
        """

    async def progress(self, watch: TurnWatch, *, with_request: bool = False) -> TurnProgress:
        """Returns the state of the turn. Raises `TurnNotFound`."""

    async def keep_up(self) -> None:
        """Writes pending notes about running and ended turns, and counts queued ones now and then."""


class PushConfigStore(Protocol):
    """Where notices of turns go: kept with the session, and gone with it. Any method raises `TurnNotFound`."""

    async def put(self, turn: PushTurn, config: PushConfig) -> None:
        """Keeps one in place of any with its id. Raises `InvalidArgument` where the turn has too many. Idempotent."""

    async def list(self, turn: PushTurn) -> list[PushConfig]:
        """Returns those of the turn, in the order in which they were first put."""

    async def delete(self, turn: PushTurn, config_id: str) -> None:
        """Removes one, where it is there."""


class LimitStore(Protocol):
    """The turns begun in the last minute, and running, for each limit; exact across replicas. A turn counts once in a
    limit, however often it is taken. It keeps its place among the running ones until it is freed or expires.
    """

    async def take(self, turn: LimitedTurn, waiter_id: str, *, wait: bool, counted: bool) -> LimitTaken | LimitWait:
        """Takes every limit of the turn, or none.

        With `wait`, a full limit that allows waiting gives a place in its queue; the others are taken. `counted`: the
        turn began before, and only takes its places. Raises `RateLimited`, `LimitQueueFull`; the turn then counts in
        none of its limits any more.
        """

    async def wait_for_wakeup(self, waiter_id: str, timeout: float) -> None:
        """As `TurnStore.wait_for_wakeup`."""

    async def keep(self, turn: LimitedTurn) -> int:
        """Extends the turn's places; returns the store's time in milliseconds."""

    async def free(self, turn: LimitedTurn) -> None:
        """Frees the turn's places, running or queued, for waiting turns. Idempotent."""

    async def roll_back(self, turn: LimitedTurn) -> None:
        """As `free`, and the turn counts as never begun. Idempotent."""


class SessionStore(Protocol):
    """Sessions with their history. An expired session does not exist for any caller."""

    async def create(self, session: NewSession) -> Session:
        """Raises `SessionAlreadyExists`, `AgentDeleted`."""

    async def get(self, key: SessionKey, user_id: str = "") -> Session:
        """Does not extend its life.

        Raises `SessionNotFound`, also if it belongs to a user other than a given `user_id`.
        """

    async def update(self, change: SessionChange) -> Session:
        """Changes what is given. Idempotent. Raises `SessionNotFound`, also when it has ended by the new idle TTL."""

    async def delete(self, key: SessionKey, user_id: str = "") -> Removed:
        """Removes the session whole; a turn that runs on it can't be committed. Raises `SessionNotFound`."""

    async def list_sessions(self, query: SessionQuery, size: int, after: ListPosition | None = None) -> SessionPage:
        """Returns at most `size` live sessions, those whose last turn began latest first.

        The work is bounded, so a page may hold fewer, even none, before the last.
        """

    async def turns(self, query: TurnQuery) -> TurnPage:
        """Returns a page of turns; turns appended meanwhile do not shift pages. Raises `SessionNotFound`."""

    async def turn(self, key: SessionKey, turn_id: str, user_id: str = "") -> tuple[bytes, Session]:
        """Returns a serialized turn, and the session. Raises `SessionNotFound`, `StoredTurnNotFound`."""

    async def number_of_turn(self, key: SessionKey, turn_id: str) -> tuple[int, Session]:
        """Returns a turn's number, and the session. Raises `SessionNotFound`, `StoredTurnNotFound`."""

    async def delete_turn(self, key: SessionKey, turn_id: str, user_id: str = "") -> Session:
        """Removes the last turn; returns the session as it is then.

        Raises `SessionNotFound`, `StoredTurnNotFound`, `TurnNotLast`, `SessionBusy` while a turn is under way.
        """

    async def purge(self, purge: Purge) -> Removed:
        """Removes the matching sessions. After an interruption, a repeat continues with the rest."""

    async def fork(self, fork: Fork) -> Session:
        """Copies a session's history into a new one, atomically.

        Raises `SessionNotFound`, `SessionAlreadyExists`, `AgentDeleted`.
        """


class AgentStore(Protocol):
    """What session_svc stores about agents: fences, agents with sessions, and the position in the config feed."""

    async def fence(self, incarnation: AgentIncarnation) -> None:
        """Once this returns, no turn starts on that incarnation of the agent. Idempotent."""

    async def unfence(self, incarnation: AgentIncarnation) -> None:
        """Removes the fence (the agent was undeleted). Idempotent."""

    async def agents(self) -> list[AgentIncarnation]:
        """Returns the agents that may have sessions, or have had some within the longest life of a session."""

    async def cursor(self) -> str:
        """Returns how far the config feed was followed; empty before the first time."""

    async def keep_cursor(self, cursor: str) -> None:
        """Keeps it. Idempotent."""


class ChangeKind(enum.Enum):
    """The kind of a message of the feed."""

    NOTHING = "nothing"
    CREATED = "created"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change:
    """One message of the feed; a heartbeat, or a change that means nothing to sessions, has no agent."""

    cursor: str
    kind: ChangeKind = ChangeKind.NOTHING
    agent: AgentIncarnation | None = None


class ConfigFeed(Protocol):
    """The port to the feed of config changes."""

    def changes(self, cursor: str) -> AsyncGenerator[Change, None]:
        """Yields every change after a cursor, or from now on if it is empty; the first message has the current cursor.

        Raises `ServiceError` when the feed ends, `RemoteError` with reason CURSOR_TOO_OLD among others.
        """

    async def exists(self, agent: AgentIncarnation) -> bool:
        """Returns whether this incarnation of the agent exists. Raises `ServiceError` if that can't be determined."""


State = Mapping[str, Any]


class AuditLog(Protocol):
    """The port to config_svc's audit log, and to the API keys of erased users."""

    async def record(
        self, project: str, action: str, resource: str, *, user_id: str, before: State | None, after: State | None
    ) -> None:
        """Adds a write that `current()` is about to make. Raises `ServiceError` when that can't be done."""

    async def revoke_keys(self, project: str, user_id: str) -> int:
        """Revokes the API keys that are bound to the user; returns how many. Raises `ServiceError`."""

    async def erase(self, project: str, user_id: str) -> int:
        """Replaces the user by a pseudonym; returns the number of events. Raises `ServiceError`."""
