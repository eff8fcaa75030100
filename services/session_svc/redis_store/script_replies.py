"""What the scripts reply, by name: each class has the fields of one reply in the scripts' own order.

The scripts declare the same names (`-- Reply`), and a test compares both sides. Times are milliseconds,
whole numbers `int`, the rest bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from session_svc.redis_client.link import Reply
from session_svc.redis_store.script_calls import (
    Append,
    AppendEvents,
    AppendParts,
    Begin,
    Call,
    Cancel,
    Claim,
    Commit,
    Create,
    Cut,
    Enqueue,
    HandOver,
    LimitTake,
    PushConfigs,
    Read,
    ReadEvents,
    Renew,
    Replayed,
    TakeDue,
    TurnState,
    Update,
)


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
    turn: bytes | None
    cancelled: bytes | None
    calls: bytes | None


class BeginOk(NamedTuple):
    """The lease is taken, or its own turn has it already; it lasts `left_ms` more."""

    token: int
    expire_ms: int
    left_ms: int
    created: int
    session: Sequence[bytes | None]
    children: int


class Joined(NamedTuple):
    """The turn of the request is queued or under way."""

    turn_id: bytes


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
    """The lease is extended; `picked_up`: another gateway may take the turn over."""

    expire_ms: int
    picked_up: int


class CommitOk(NamedTuple):
    """The turn is stored."""

    number: int
    expire_ms: int
    children: int
    event_id: bytes


class Interrupted(NamedTuple):
    """The lease was taken away by a later request."""


class Cancelled(NamedTuple):
    """The turn is to end."""


class HandedOver(NamedTuple):
    """The lease is free for another gateway."""


class Claimed(NamedTuple):
    """The lease is taken; what another gateway wrote for the takeover."""

    token: int
    expire_ms: int
    attempt: int
    request: bytes


class StillHeld(NamedTuple):
    """A gateway has the lease for so long."""

    ms: int


class Gone(NamedTuple):
    """The turn needs no takeover."""


class Ended(NamedTuple):
    """The turn has ended."""


class Cancelling(NamedTuple):
    """The gateway that runs the turn is about to end it."""


class StateRead(NamedTuple):
    """How far a turn is (1 queued, 2 running, 3 ended), with the first and the last entry of its journal.

    `held`: whether somebody runs it, or may be about to.
    """

    state: int
    attempt: int
    held: int
    entries: Sequence[tuple[bytes, Sequence[bytes]]]
    request: bytes


class PushConfigsRead(NamedTuple):
    """The id and content of each of a turn's, by turns."""

    configs: Sequence[bytes]


class TooMany(NamedTuple):
    """There is no room for one more."""


class Due(NamedTuple):
    """A turn that waits for a gateway, or empty; `queued` is how many have not run yet."""

    member: bytes
    queued: int


class Enqueued(NamedTuple):
    """The turn is in the queue."""


class QueueIsFull(NamedTuple):
    """The project has as many turns in the queue as it may."""


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
        b"joined": Joined,
        b"replay": Replay,
        b"wait": Wait,
        b"busy": Busy,
        b"queue_full": QueueFull,
        b"missing": Missing,
        b"mismatch": Mismatch,
        b"reused": Reused,
        b"session_full": SessionIsFull,
        b"lost": Lost,
    },
    Renew: {b"ok": RenewOk, b"interrupted": Interrupted, b"cancelled": Cancelled, b"lost": Lost},
    Commit: {
        b"ok": CommitOk,
        b"interrupted": Interrupted,
        b"lost": Lost,
        b"full": JournalFull,
        b"session_full": SessionIsFull,
        b"parts_full": PartsFull,
    },
    AppendEvents: {
        b"ok": EventsAdded,
        b"interrupted": Interrupted,
        b"cancelled": Cancelled,
        b"lost": Lost,
        b"full": JournalFull,
    },
    HandOver: {b"ok": HandedOver, b"interrupted": Interrupted, b"cancelled": Cancelled, b"lost": Lost},
    Claim: {b"ok": Claimed, b"held": StillHeld, b"gone": Gone},
    Cancel: {b"ended": Ended, b"cancelling": Cancelling, b"missing": Missing, b"busy": Busy},
    TurnState: {b"ok": StateRead, b"missing": Missing},
    PushConfigs: {b"ok": PushConfigsRead, b"missing": Missing, b"full": TooMany},
    TakeDue: {b"ok": Due},
    Enqueue: {b"ok": Enqueued, b"full": QueueIsFull},
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
"""What each script can reply, by its first word; other scripts reply with numbers."""


def reply_of(call: type[Call], reply: Reply) -> Any:
    """Returns the reply of a script by its name."""
    return REPLIES[call][reply[0]]._make(reply[1:])
