"""What the scripts take and reply, by name: each class has the fields of one script in the script's own order.

The scripts declare the same names (`unpack(ARGV)`, and `-- Reply`), and a test compares both sides. Times and spans of
time are milliseconds. Numbers arrive in scripts as text, whole numbers in replies as `int`, the rest as bytes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from session_svc.redis_client.link import Reply


class Begin(NamedTuple):
    """begin.lua. `policy` is a `BusyPolicy`, `metadata` JSON or empty; `max_turns` 0 is no bound."""

    turn_id: str
    waiter_id: str
    wait_ms: int
    policy: str
    max_waiters: int
    lease_ms: int
    claim_ms: int
    agent_id: str
    agent_uid: str
    user: str
    must_exist: int
    idle_ms: int
    lifetime_ms: int
    request: bytes
    digest: bytes
    metadata: str
    max_turns: int


class Renew(NamedTuple):
    """renew.lua."""

    token: int
    turn_id: str
    lease_ms: int
    waiter_id: str


class Commit(NamedTuple):
    """commit.lua. `turn` and `flags` are as `turn_codec.body_of` returns them; `-` cuts nothing.

    The digests and contents of the turn's parts come behind.
    """

    token: int
    turn_id: str
    turn: bytes
    messages: int
    flags: int
    prompt: int
    completion: int
    cached: int
    reasoning: int
    cache_write: int
    revision: int
    idle_ms: int
    request: bytes
    digest: bytes
    replay_ms: int
    max_replays: int
    max_turns: int
    drop_oldest: int
    claim_ms: int
    id_sum: int
    history: bytes
    cut_after: int | str
    end_event: bytes
    keep_ms: int
    max_part_bytes: int


class Abort(NamedTuple):
    """abort.lua."""

    token: int
    turn_id: str
    claim_ms: int
    end_event: bytes
    keep_ms: int


class AppendEvents(NamedTuple):
    """append_events.lua; the events come behind."""

    token: int
    turn_id: str
    first: int
    keep_ms: int
    max_bytes: int


class ReadEvents(NamedTuple):
    """read_events.lua. `after` is an entry's id, or empty."""

    turn_id: str
    user: str
    after: str
    waiter_id: str
    max_events: int
    max_bytes: int
    max_watchers: int


class Leave(NamedTuple):
    """leave.lua."""

    waiter_id: str
    claim_ms: int


class Create(NamedTuple):
    """create.lua."""

    agent_id: str
    agent_uid: str
    user: str
    metadata: str
    idle_ms: int
    lifetime_ms: int
    pinned: int


class Read(NamedTuple):
    """read.lua. An empty `user` reads any user's session."""

    user: str = ""


class Update(NamedTuple):
    """update.lua. `-` leaves a field as it is."""

    user: str
    metadata: str
    idle_ms: int | str
    pinned: int | str


class Cut(NamedTuple):
    """cut.lua. An empty `user` is any user."""

    user: str
    id_sum: int


class Delete(NamedTuple):
    """delete.lua. What is empty does not narrow; `damaged`: one that can't be read goes, too."""

    agent_id: str
    agent_uid: str
    user: str
    idle_ms: int | str
    claim_ms: int
    damaged: int


class Append(NamedTuple):
    """append.lua; the elements of the turns come behind."""

    token: int
    turn_id: str
    lease_ms: int
    first: int
    last: int
    messages: int
    revision: int
    pinned: int
    complete: int


class AppendParts(NamedTuple):
    """append_parts.lua; the turn's number, digest and content of each come behind."""

    token: int
    turn_id: str
    lease_ms: int


class Confirm(NamedTuple):
    """confirm.lua."""


class Replayed(NamedTuple):
    """replayed.lua."""

    turn_id: str
    agent_uid: str
    user: str
    request: bytes
    digest: bytes


class Sweep(NamedTuple):
    """sweep.lua; member and score, by turns, come behind."""

    grace_ms: int


class LimitTake(NamedTuple):
    """limit_take.lua."""

    turn: str
    waiter_id: str
    a_minute: int
    at_once: int
    hold_ms: int
    stand_ms: int
    places: int
    counted: int


class LimitKeep(NamedTuple):
    """limit_keep.lua."""

    turn: str
    hold_ms: int


class LimitFree(NamedTuple):
    """limit_free.lua."""

    turn: str
    uncount: int


SessionCall: TypeAlias = (
    Begin
    | Renew
    | Commit
    | Abort
    | AppendEvents
    | ReadEvents
    | Leave
    | Create
    | Read
    | Update
    | Cut
    | Delete
    | Append
    | AppendParts
    | Confirm
    | Replayed
)
IndexCall: TypeAlias = Sweep
LimitCall: TypeAlias = LimitTake | LimitKeep | LimitFree
Call: TypeAlias = SessionCall | IndexCall | LimitCall

SESSION_CALLS: tuple[type[SessionCall], ...] = (
    Begin, Renew, Commit, Abort, AppendEvents, ReadEvents, Leave,
    Create, Read, Update, Cut, Delete, Append, AppendParts, Confirm, Replayed,
)  # fmt: skip
OTHER_CALLS: tuple[type[Call], ...] = (Sweep, LimitTake, LimitKeep, LimitFree)


class SessionFields(NamedTuple):
    """A session as scripts reply with it: times by the server's clock, None for what was never set."""

    agent_id: bytes
    agent_uid: bytes
    user_id: bytes | None
    created: bytes
    activity: bytes
    idle: bytes
    cap: bytes
    expire: bytes
    first: bytes | None
    last: bytes | None
    messages: bytes | None
    prompt: bytes | None
    completion: bytes | None
    cached: bytes | None
    revision: bytes | None
    pinned: bytes | None
    metadata: bytes | None
    history: bytes | None
    reasoning: bytes | None
    cache_write: bytes | None
    parts: bytes | None


class BeginOk(NamedTuple):
    """The lease is taken."""

    token: int
    expire_ms: int
    created: int
    session: Sequence[bytes | None]


class Replay(NamedTuple):
    """The request has had its turn: its number, and that of the first turn still stored."""

    number: int
    first: int
    session: Sequence[bytes | None]


class Wait(NamedTuple):
    """The turn has a place in the queue; asking again may help in `ms`."""

    ms: int


class Busy(NamedTuple):
    """Another turn runs; asking again may help in `ms`."""

    ms: int


class QueueFull(NamedTuple):
    """Too many turns wait; asking again may help in `ms`."""

    ms: int


class Missing(NamedTuple):
    """No session, or another user's."""


class NotLast(NamedTuple):
    """Other turns come after it."""


class Mismatch(NamedTuple):
    """The session is another agent's."""

    agent_uid: bytes


class Reused(NamedTuple):
    """The request came with another digest before."""


class SessionIsFull(NamedTuple):
    """The session has all the turns that it may keep."""


class PartsFull(NamedTuple):
    """The session has all the bytes of parts that it may keep."""


class RenewOk(NamedTuple):
    """The lease is extended."""

    expire_ms: int


class CommitOk(NamedTuple):
    """The turn is stored."""

    number: int
    expire_ms: int


class Interrupted(NamedTuple):
    """The lease was taken away by a later request."""


class Lost(NamedTuple):
    """The lease is not held."""


class EventsAdded(NamedTuple):
    """The events are in the journal; the id of the last one."""

    event_id: bytes


class JournalFull(NamedTuple):
    """The journal has as many bytes as it may."""


class EventsRead(NamedTuple):
    """A part of a journal. `ended`: nothing comes behind it; `held`: the turn has its lease."""

    ended: int
    held: int
    entries: Sequence[tuple[bytes, Sequence[bytes]]]


class SessionOk(NamedTuple):
    """Done; the session as it is now."""

    session: Sequence[bytes | None]


class Exists(NamedTuple):
    """A session with this id exists."""


class NoReplay(NamedTuple):
    """Nothing is stored for the request."""


class Granted(NamedTuple):
    """The turn counts in the limit, and holds its place."""

    now_ms: int
    remaining: int
    reset_ms: int


class LimitWaits(NamedTuple):
    """The turn counts, and waits for a place."""

    now_ms: int
    remaining: int
    reset_ms: int
    check_in_ms: int


class OverRate(NamedTuple):
    """Too many turns have begun in the last minute."""

    now_ms: int
    retry_ms: int
    reset_ms: int


class Refused(NamedTuple):
    """Too many turns are under way."""

    now_ms: int
    retry_ms: int


class LimitIsFull(NamedTuple):
    """Too many turns wait for a place."""

    now_ms: int
    retry_ms: int


REPLIES: Mapping[type[Call], Mapping[bytes, Any]] = {
    Begin: {
        b"ok": BeginOk,
        b"replay": Replay,
        b"wait": Wait,
        b"busy": Busy,
        b"queue_full": QueueFull,
        b"missing": Missing,
        b"mismatch": Mismatch,
        b"reused": Reused,
        b"session_full": SessionIsFull,
    },
    Renew: {b"ok": RenewOk, b"interrupted": Interrupted, b"lost": Lost},
    Commit: {
        b"ok": CommitOk,
        b"interrupted": Interrupted,
        b"lost": Lost,
        b"session_full": SessionIsFull,
        b"parts_full": PartsFull,
    },
    AppendEvents: {b"ok": EventsAdded, b"interrupted": Interrupted, b"lost": Lost, b"full": JournalFull},
    ReadEvents: {b"ok": EventsRead, b"missing": Missing},
    Create: {b"ok": SessionOk, b"exists": Exists},
    Read: {b"ok": SessionOk, b"missing": Missing},
    Update: {b"ok": SessionOk, b"missing": Missing},
    Cut: {b"ok": SessionOk, b"missing": Missing, b"busy": Busy, b"not_last": NotLast},
    Append: {b"ok": SessionOk, b"lost": Lost},
    AppendParts: {b"ok": SessionOk, b"lost": Lost},
    Replayed: {b"replay": Replay, b"none": NoReplay},
    LimitTake: {
        b"granted": Granted,
        b"wait": LimitWaits,
        b"rate": OverRate,
        b"refused": Refused,
        b"queue_full": LimitIsFull,
    },
}
"""What each script can reply, by the word that stands first; the other scripts reply with numbers."""


def script_of(call: type[Call]) -> str:
    """Returns the name of the script that takes these arguments."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", call.__name__).lower()


def reply_of(call: type[Call], reply: Reply) -> Any:
    """Returns the reply of a script by its name."""
    return REPLIES[call][reply[0]]._make(reply[1:])
