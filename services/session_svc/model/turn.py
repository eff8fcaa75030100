"""Turns as values: what session_svc is asked to do with them, and what it answers.

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
    """The right to go on with a turn. `token` grows with every lease of the session."""

    key: SessionKey
    turn_id: str
    token: int
    expire_ms: int = 0
    limits: tuple[str, ...] = ()
    """The subjects of the limits in which the turn holds a place."""


@value
class RequestMark:
    """What makes a request recognisable: the caller's id for it and a digest of its content."""

    request_id: str
    digest: bytes

    @property
    def name(self) -> bytes:
        """A name of fixed length for the request id."""
        return hashlib.sha256(self.request_id.encode()).digest()[:16]


@value
class BeginTurn:
    """What BeginTurn is asked for. `busy` and `request` say what a turn that is running, or has run, means to it."""

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
    """It has results of tool calls: the window holds all of the chain that they go on with, whatever its length."""
    parent_id: str = ""
    """The session that this one goes with when it is deleted."""
    may_cut: bool = False
    """Its commit may remove turns: a full session lets it begin."""
    within_chain: bool = False
    """Its window may begin in the midst of a chain of tool calls, behind the turn that the chain began with."""
    after_turn: str = ""
    """The id of the turn that it follows; empty: the session's last one, whichever that is."""
    join_repeat: bool = False
    """Where a turn of the same request is under way, it does not wait for that, but hears which one it is."""


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
    """A commit that removes no turns will be refused."""


@value
class Replayed:
    """The request has had its turn: here it is, serialized."""

    session: Session
    turn: bytes


@value
class Joined:
    """A turn of the same request is queued or under way."""

    key: SessionKey
    turn_id: str


@value
class Waiting:
    """The turn has a place in the session's queue. Ask again when woken, and at the latest after `check_in_ms`."""

    check_in_ms: int


@value
class KeptContent:
    """A content that turns name and do not hold: its digest, and how many bytes it has."""

    digest: bytes
    size: int


@value
class PartContent:
    """Such a content."""

    digest: bytes
    content: bytes


@value
class CommitTurn:
    """What CommitTurn is asked for.

    `turn` is serialized, without a number: the store gives it one. `continues` says that it starts with results of
    tool calls that an earlier turn made, and so can't be shown without that one.
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
    """Turns behind this number are removed first."""
    end_event: bytes = b""
    """Ends the turn's journal, where it has one."""
    parts: tuple[PartContent, ...] = ()
    """The contents that the turn names, each once."""


@value
class Committed:
    """The turn is stored under this number; the session ends at `expire_ms` unless a turn begins before."""

    turn_number: int
    expire_ms: int


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
    """Serialized turns in the order asked for; `next` is the number to go on with, None after the last."""

    turns: Sequence[bytes]
    next: int | None
    expire_ms: int
    """When the session that they are of expires."""


def same_request(one: bytes, other: bytes) -> bool:
    """Whether two digests are of one request; those of the release before are 32 bytes, which others begin with."""
    return one == other or (
        len(one) != len(other) and min(len(one), len(other)) == _OLD_DIGEST and one[:_OLD_DIGEST] == other[:_OLD_DIGEST]
    )


_OLD_DIGEST = 32
