"""Values of sessions: what is stored, requested and returned.

Times are milliseconds since the epoch by the store's clock, durations milliseconds.
"""

import enum
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import field

from servicekit.values import value
from session_svc.model.limits import JournalBounds, LimitTimes, PickupBounds

DEFAULT_IDLE_MS = 30 * 60 * 1000
DEFAULT_LIFETIME_MS = 24 * 60 * 60 * 1000
LONGEST_LIFETIME_MS = 90 * 24 * 60 * 60 * 1000


class WhenFull(enum.StrEnum):
    """What happens to a session that has the maximum number of turns."""

    DROP_OLDEST = "drop_oldest"
    REFUSE = "refuse"


@value
class SessionKey:
    """The key of a session; projects do not share sessions."""

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
    """A conversation between one user and one agent, as of when it was read.

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
    """The digest from the commit of the newest turn; empty if it had none."""
    part_bytes: int = 0
    """Bytes of the contents kept beside its turns."""
    running_turn_id: str = ""
    """The turn that holds the lease; empty without one."""
    cancelled_turn_id: str = ""
    """The turn whose pending calls will not be answered, as long as it is the newest."""
    begun_calls: tuple[str, ...] = ()
    """The calls of the newest turn that were approved, and begun by a turn that was not stored."""

    @property
    def turn_count(self) -> int:
        """Turns stored."""
        return self.last_turn - self.first_turn + 1


@value
class NewSession:
    """The request of CreateSession."""

    key: SessionKey
    agent_id: str
    agent_uid: str
    user_id: str = ""
    idle_ms: int = DEFAULT_IDLE_MS
    lifetime_ms: int = DEFAULT_LIFETIME_MS
    pinned_revision: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    for_any_agent: bool = False
    """It has no agent, and gets that of its first turn."""


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
    """The filters of ListSessions; empty fields match all."""

    project: str
    agent_id: str = ""
    user_id: str = ""


@value
class ListPosition:
    """The last position of a page of a list, after which the next page begins."""

    activity_ms: int
    session_id: str


@value
class SessionPage:
    """A page of sessions; `next` is None after the last."""

    sessions: Sequence[Session]
    next: ListPosition | None


@value
class Fork:
    """The request of ForkSession. `up_to` is the number of the last turn to copy; 0: all."""

    source: SessionKey
    new_id: str
    up_to: int = 0
    user_id: str = ""
    window_messages: int = 0
    """Only the turns of a window of this many messages; 0: all."""
    continues: bool = False
    """Whether the window is for a turn that continues calls of the last one."""
    agent_id: str = ""
    """The agent of the copy; empty: the source's."""
    agent_uid: str = ""


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
    """What was removed of a user, and when that was complete. `audit_events` counts pseudonymised events, `api_keys`
    revoked keys.
    """

    removed: Removed
    erase_ms: int
    audit_events: int = 0
    api_keys: int = 0


@value
class AgentIncarnation:
    """One incarnation of an agent id; after deletion and re-creation it is another."""

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
    pickup: PickupBounds = field(default_factory=PickupBounds)
    part_bytes: int = 256 * 1024 * 1024
    """Of the contents that a session keeps beside its turns."""

    def limit_times(self) -> LimitTimes:
        """Returns how long turns hold their places in limits: a place never ends before its lease."""
        return LimitTimes(hold_ms=self.lease_ms + self.claim_ms, places=self.queue_per_limit)


def new_session_id() -> str:
    """Returns a session id that cannot be guessed."""
    return f"s-{secrets.token_hex(16)}"


def session_id_of_request(project: str, agent_uid: str, user_id: str, request_id: str) -> str:
    """Returns the session id for a request without one, the same for a repeat of the request."""
    text = "\n".join((project, agent_uid, user_id, request_id))
    return f"s-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
