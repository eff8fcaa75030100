"""What the scripts take, by name: each class has the arguments of one script in the script's own order.

The scripts declare the same names (`unpack(ARGV)`), and a test compares both sides; `script_replies` has what they
answer. Times and spans of time are milliseconds. Numbers arrive in scripts as text.
"""

import re
from typing import NamedTuple, TypeAlias


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
    joins: int
    keep_ms: int


class Renew(NamedTuple):
    """renew.lua."""

    token: int
    turn_id: str
    lease_ms: int
    waiter_id: str


class Commit(NamedTuple):
    """commit.lua. `turn` and `flags` are as `turn_codec.body_of` returns them; `-` cuts nothing.

    The journal's last events come behind, then the digests and contents of the turn's parts.
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
    max_bytes: int
    first_event: int
    events: int


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
    pickup_ms: int
    request: bytes
    calls: str


class HandOver(NamedTuple):
    """hand_over.lua."""

    token: int
    turn_id: str
    wait_ms: int
    queued: int


class Claim(NamedTuple):
    """claim.lua."""

    turn_id: str
    lease_ms: int
    pickup_ms: int
    max_lost: int
    keep_ms: int
    claim_ms: int


class Cancel(NamedTuple):
    """cancel.lua."""

    turn_id: str
    user: str
    keep_ms: int
    claim_ms: int
    waiting: int = 0


class TurnState(NamedTuple):
    """turn_state.lua."""

    turn_id: str
    user: str
    with_request: int = 0


class PushConfigs(NamedTuple):
    """push_configs.lua. `action` is `put`, `delete` or `list`, of which only the first takes a content."""

    turn_id: str
    user: str
    action: str
    id: str = ""
    content: bytes = b""
    max_of_turn: int = 0
    max_of_session: int = 0


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


class Adopt(NamedTuple):
    """adopt.lua."""


class Keep(NamedTuple):
    """keep.lua."""

    expire_ms: int


class Cut(NamedTuple):
    """cut.lua. An empty `user` is any user; `begun` is JSON, or empty."""

    user: str
    id_sum: int
    begun: str


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


class TakeDue(NamedTuple):
    """take_due.lua."""

    again_ms: int


class NextDue(NamedTuple):
    """next_due.lua."""


class Enqueue(NamedTuple):
    """enqueue.lua."""

    member: str
    project: str
    most: int


class LookAgain(NamedTuple):
    """look_again.lua; -1 ms is never."""

    member: str | bytes
    ms: int


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
    | HandOver
    | Claim
    | Cancel
    | TurnState
    | PushConfigs
    | Leave
    | Create
    | Read
    | Update
    | Adopt
    | Keep
    | Cut
    | Delete
    | Append
    | AppendParts
    | Confirm
    | Replayed
)
IndexCall: TypeAlias = Sweep
LimitCall: TypeAlias = LimitTake | LimitKeep | LimitFree
WaitingCall: TypeAlias = TakeDue | NextDue | Enqueue | LookAgain
Call: TypeAlias = SessionCall | IndexCall | LimitCall | WaitingCall

SESSION_CALLS: tuple[type[SessionCall], ...] = (
    Begin, Renew, Commit, Abort, AppendEvents, ReadEvents, HandOver, Claim, Cancel, TurnState, PushConfigs, Leave,
    Create, Read, Update, Adopt, Keep, Cut, Delete, Append, AppendParts, Confirm, Replayed,
)  # fmt: skip
OTHER_CALLS: tuple[type[Call], ...] = (Sweep, LimitTake, LimitKeep, LimitFree, TakeDue, NextDue, Enqueue, LookAgain)


def script_of(call: type[Call]) -> str:
    """Returns the name of the script that takes these arguments."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", call.__name__).lower()
