"""Sessions and turns as values: what session_svc stores, what it is asked to do, and what it answers.

Times are milliseconds since the epoch by the store's clock, durations milliseconds.
"""

import enum
import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import NamedTuple, Protocol, TypeVar

from contract.enums import BusyPolicy
from servicekit.values import value
from session_svc.model.errors import ToolChainTooLarge
from session_svc.model.limits import JournalBounds, LimitState, LimitTimes, TurnLimit

DEFAULT_IDLE_MS = 30 * 60 * 1000
DEFAULT_LIFETIME_MS = 24 * 60 * 60 * 1000
LONGEST_LIFETIME_MS = 90 * 24 * 60 * 60 * 1000


class WhenFull(enum.StrEnum):
    """What happens to a session that has as many turns as it may keep."""

    DROP_OLDEST = "drop_oldest"
    REFUSE = "refuse"


@value
class SessionKey:
    """Where a session is: no two projects share one."""

    project: str
    session_id: str


@value
class Usage:
    """Tokens that the model counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0


@value
class Session:
    """A conversation between one user and one agent, as it stood when it was read.

    An empty `user_id` means that it belongs to no user. `first_turn` is the number of the oldest turn that is still
    stored, `last_turn` that of the newest (0 before the first).
    """

    key: SessionKey
    agent_id: str
    agent_uid: str
    user_id: str
    created_ms: int
    activity_ms: int
    idle_ms: int
    lifetime_ms: int
    expire_ms: int
    first_turn: int = 1
    last_turn: int = 0
    message_count: int = 0
    usage: Usage = field(default_factory=Usage)
    agent_revision: int = 0
    pinned_revision: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    history_digest: bytes = b""
    """What the commit of the newest turn gave; empty where it gave none."""
    part_bytes: int = 0
    """Of the contents that it keeps beside its turns."""

    @property
    def turn_count(self) -> int:
        """Turns stored."""
        return self.last_turn - self.first_turn + 1


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
class NewSession:
    """What CreateSession is asked for."""

    key: SessionKey
    agent_id: str
    agent_uid: str
    user_id: str = ""
    idle_ms: int = DEFAULT_IDLE_MS
    lifetime_ms: int = DEFAULT_LIFETIME_MS
    pinned_revision: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)


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
    """Its window may begin with results whose calls are out of sight, rather than be empty."""


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
class SessionChange:
    """What UpdateSession changes; None leaves a field as it is. With a `user_id` the session must be that user's."""

    key: SessionKey
    user_id: str = ""
    metadata: Mapping[str, str] | None = None
    idle_ms: int | None = None
    pinned_revision: int | None = None


@value
class SessionQuery:
    """Which live sessions ListSessions wants; an empty field does not narrow."""

    project: str
    agent_id: str = ""
    user_id: str = ""


@value
class ListPosition:
    """The last place that a page of a list looked at: the next page goes on behind it."""

    activity_ms: int
    session_id: str


@value
class SessionPage:
    """Some sessions, and where to go on; `next` is None after the last."""

    sessions: Sequence[Session]
    next: ListPosition | None


class HeadedTurn(NamedTuple):
    """A serialized turn with what a window needs to know of it."""

    message_count: int
    continues: bool
    number: int
    turn: bytes

    @property
    def size(self) -> int:
        """Bytes of it."""
        return len(self.turn)


class Fitting(Protocol):
    """What `fit_window` needs to know of a turn."""

    @property
    def message_count(self) -> int:
        """Messages in it."""

    @property
    def continues(self) -> bool:
        """Whether it can't be shown without the turn before."""

    @property
    def size(self) -> int:
        """Bytes of it as it is sent, however it is stored."""


_Fitting = TypeVar("_Fitting", bound=Fitting)


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


@value
class Fork:
    """What ForkSession is asked for. `up_to` is the number of the last turn to copy; 0: all."""

    source: SessionKey
    new_id: str
    up_to: int = 0
    user_id: str = ""


@value
class Purge:
    """Which sessions DeleteSessions removes: those that fit every field that is set; at least one is."""

    project: str
    agent_id: str = ""
    agent_uid: str = ""
    user_id: str = ""
    idle_longer_than_ms: int | None = None


@value
class Removed:
    """How much was removed."""

    sessions: int = 0
    turns: int = 0


@value
class Erasure:
    """What was removed of a user, and when that was complete.

    `audit_events` counts those in which a pseudonym stands now, `api_keys` those of the user that were revoked.
    """

    removed: Removed
    erase_ms: int
    audit_events: int = 0
    api_keys: int = 0


@value
class AgentIncarnation:
    """One existence of an agent id: deleted and created again, it is another."""

    project: str
    agent_id: str
    agent_uid: str


@value
class SessionBounds:
    """The bounds of sessions and turns that an operator sets. Times in milliseconds.

    A lease ends `lease_ms` after it was taken or renewed. A waiter whose turn has come has `claim_ms` to take it.
    """

    lease_ms: int = 15_000
    claim_ms: int = 2_000
    queue_per_session: int = 32
    queue_per_limit: int = 256
    window_bytes: int = 2 * 1024 * 1024
    turns_per_session: int = 10_000
    when_full: WhenFull = WhenFull.DROP_OLDEST
    replays_per_session: int = 1_000
    replay_ms: int = 24 * 60 * 60 * 1000
    journal: JournalBounds = field(default_factory=JournalBounds)
    part_bytes: int = 256 * 1024 * 1024
    """Of the contents that a session keeps beside its turns."""

    def limit_times(self) -> LimitTimes:
        """Returns how long turns hold their places in limits: a place never ends before its lease."""
        return LimitTimes(hold_ms=self.lease_ms + self.claim_ms, places=self.queue_per_limit)


def same_request(one: bytes, other: bytes) -> bool:
    """Whether two digests are of one request; those of the release before are 32 bytes, which others begin with."""
    return one == other or (
        len(one) != len(other) and min(len(one), len(other)) == _OLD_DIGEST and one[:_OLD_DIGEST] == other[:_OLD_DIGEST]
    )


_OLD_DIGEST = 32


def new_session_id() -> str:
    """Returns a session id that nobody can guess."""
    return f"s-{secrets.token_hex(16)}"


def session_id_of_request(project: str, agent_uid: str, user_id: str, request_id: str) -> str:
    """Returns the id that the session of a request without one gets, the same for a repeat of the request."""
    text = "\n".join((project, agent_uid, user_id, request_id))
    return f"s-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def fit_window(
    newest_first: Iterable[_Fitting],
    max_messages: int,
    max_bytes: int,
    *,
    continues: bool = False,
    within_chain: bool = False,
) -> list[_Fitting]:
    """Returns the newest turns, oldest first, that hold at most so many messages and bytes together.

    Whole turns only. The first is never one that continues another: the tool calls that its results answer would be
    missing, and a model call with them would fail. For a turn that itself `continues`, the turns of that chain are all
    in, however many messages they have: without its task no model can go on. Raises `ToolChainTooLarge` where they
    have more bytes. `within_chain`: of a chain that is longer than the window, its newest turns rather than none.
    """
    window: list[_Fitting] = []
    for turn in newest_first:
        max_messages -= turn.message_count
        max_bytes -= turn.size
        if max_bytes < 0 and continues:
            raise ToolChainTooLarge
        if max_bytes < 0 or (max_messages < 0 and not continues):
            break
        window.append(turn)
        continues = continues and turn.continues
    if not within_chain or not all(turn.continues for turn in window):
        while window and window[-1].continues:
            window.pop()
    window.reverse()
    return window
