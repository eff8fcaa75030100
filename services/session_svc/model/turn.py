"""Values of turns: what is requested and returned.

Times are milliseconds since the epoch by the store's clock, durations milliseconds.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import field

from contract.enums import BusyPolicy
from servicekit.values import value
from session_svc.model.limits import LimitState, TurnLimit
from session_svc.model.session import DEFAULT_IDLE_MS, DEFAULT_LIFETIME_MS, Session, SessionKey, Usage


@value
class Lease:
    """The lease of a turn. `token` grows with every lease of the session."""

    key: SessionKey
    turn_id: str
    token: int
    expire_ms: int = 0
    limits: tuple[str, ...] = ()
    """The subjects of the limits in which the turn holds a place."""
    ends: float = field(default=0.0, compare=False)
    """When it ends at the earliest, by this process's `time.monotonic()`; 0.0 where that is not known."""


@value
class RequestMark:
    """Identifies a request: the caller's id for it, and a digest of its content."""

    request_id: str
    digest: bytes

    @property
    def name(self) -> bytes:
        """A name of fixed length for the request id."""
        return hashlib.sha256(self.request_id.encode()).digest()[:16]


@value
class BeginTurn:
    """The request of BeginTurn. `busy` and `request` determine how running and stored turns are treated."""

    key: SessionKey
    agent_id: str
    agent_uid: str
    turn_id: str
    user_id: str = ""
    window_messages: int = 0
    idle_ms: int = DEFAULT_IDLE_MS
    lifetime_ms: int = DEFAULT_LIFETIME_MS
    must_exist: bool = False
    busy: BusyPolicy = BusyPolicy.WAIT
    request: RequestMark | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[TurnLimit, ...] = ()
    stateless: bool = False
    continues: bool = False
    """It has results of tool calls: the window contains the whole chain that they continue, whatever its length."""
    parent_id: str = ""
    """The session with which this one is deleted."""
    may_cut: bool = False
    """Its commit may remove turns: a full session lets it begin."""
    within_chain: bool = False
    """Its window may begin within a chain of tool calls, after the turn that began the chain."""
    after_turn: str = ""
    """The id of the turn that it follows; empty: the session's last one, whichever that is."""
    join_repeat: bool = False
    """If a turn of the same request is running, return it instead of waiting for it."""


@value
class StatelessTurn:
    """A turn that has no session may run: it only holds limits."""

    lease: Lease
    limits: tuple[LimitState, ...]


@value
class Begun:
    """The turn may run. `window` holds whole serialized turns, oldest first."""

    session: Session
    lease: Lease
    window: Sequence[bytes]
    created: bool
    limits: tuple[LimitState, ...] = ()
    full: bool = False
    """A commit that does not remove turns will be refused."""


@value
class Replayed:
    """The stored turn of the request, serialized."""

    session: Session
    turn: bytes


@value
class Joined:
    """A turn of the same request is queued or running."""

    key: SessionKey
    turn_id: str


@value
class Waiting:
    """The turn has a place in the session's queue. Retry when woken, and after `check_in_ms` at the latest."""

    check_in_ms: int


@value
class KeptContent:
    """A content that turns refer to: its digest and size in bytes."""

    digest: bytes
    size: int


@value
class PartContent:
    """Such a content."""

    digest: bytes
    content: bytes


@value
class CommitTurn:
    """The request of CommitTurn. `turn` is serialized, without its number, which the store assigns. `continues`: it
    starts with results of an earlier turn's tool calls, and can't be shown without that turn.
    """

    lease: Lease
    turn: bytes
    message_count: int
    continues: bool = False
    usage: Usage = field(default_factory=Usage)
    agent_revision: int = 0
    idle_ms: int = DEFAULT_IDLE_MS
    request: RequestMark | None = None
    history_digest: bytes = b""
    cut_after: int | None = None
    """Turns after this number are removed first."""
    end_event: bytes = b""
    """Ends the turn's journal, where it has one."""
    parts: tuple[PartContent, ...] = ()
    """The contents that the turn refers to, each once."""
    events: tuple[bytes, ...] = ()
    """Added to the turn's journal before its end."""
    first_event: int = 0
    """The number of the first of them, as `NewEvents.first`."""


@value
class Committed:
    """The turn is stored under this number; the session ends at `expire_ms` unless a turn begins before."""

    turn_number: int
    expire_ms: int
    event_id: str = ""
    """That of the last event that was committed with the turn."""


@value
class TurnQuery:
    """A page of a session's turns: `size` turns from number `start` on, None for the first in this order."""

    key: SessionKey
    user_id: str = ""
    start: int | None = None
    size: int = 50
    newest_first: bool = False
    omit_parts: bool = False
    """Whether contents that are kept beside the turns are left out."""


@value
class TurnPage:
    """Serialized turns in the requested order; `next` is the number to continue with, None after the last."""

    turns: Sequence[bytes]
    next: int | None
    expire_ms: int
    """When their session expires."""
