"""Values of a turn's journal. Events are serialized and never parsed here."""

import enum

from servicekit.values import value
from session_svc.model.session import SessionKey
from session_svc.model.turn import Lease


@value
class NewEvents:
    """Events of a turn that holds its lease; `first` is the number of the first among those added under it, from 1."""

    lease: Lease
    first: int
    events: tuple[bytes, ...]
    request: bytes = b""
    """With the turn's first event: what another gateway needs to continue it."""
    begun_calls: tuple[str, ...] = ()
    """The calls of the previous turn that these events begin."""
    denied_calls: tuple[str, ...] = ()
    """The calls of the previous turn that were rejected, and are not made."""


@value
class TurnWatch:
    """The turn whose journal is read, and the event after which reading begins; empty: its beginning."""

    key: SessionKey
    user_id: str
    turn_id: str
    after: str = ""
    present_only: bool = False
    """Whether to read only existing entries."""


class UnheardEnd(enum.Enum):
    """The reason of an end that no gateway caused."""

    INTERRUPTED = "interrupted"
    LOST = "lost"
    CANCELLED = "cancelled"
    GIVEN_UP = "given_up"


@value
class JournalEvent:
    """One event. `turn_number` and `expire_ms` are those of a turn that was committed with it; 0 elsewhere.

    The last event of a turn that no gateway ended has no data, but a reason.
    """

    id: str
    data: bytes
    turn_number: int = 0
    expire_ms: int = 0
    unheard: UnheardEnd | None = None


@value
class JournalPage:
    """A page of a journal. `ended`: it is the last one. `held`: a gateway runs the turn."""

    events: tuple[JournalEvent, ...]
    ended: bool
    held: bool


@value
class ClaimedTurn:
    """A turn to continue: its new lease, the data of the first gateway, and the number of this attempt."""

    lease: Lease
    request: bytes
    attempt: int


@value
class NothingClaimed:
    """There was no turn to take over; `held`: the call waited, and the next one may follow at once."""

    held: bool


class TurnStage(enum.Enum):
    """The state of a turn."""

    QUEUED = 1
    RUNNING = 2
    ENDED = 3


@value
class TurnProgress:
    """The state of a turn, the number of its gateways, and the first and last event of its journal, if it has one."""

    stage: TurnStage
    attempt: int
    begun: JournalEvent | None = None
    ended: JournalEvent | None = None
    request: bytes = b""
    """What another gateway needs to continue the turn, if it was asked for."""
