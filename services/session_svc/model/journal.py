"""The journal of a turn as values: events as they are serialized, never parsed here."""

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
    """With the turn's first event: what another gateway needs to go on with it."""


@value
class TurnWatch:
    """Whose journal is read, and behind which event; empty: from its beginning."""

    key: SessionKey
    user_id: str
    turn_id: str
    after: str = ""
    present_only: bool = False
    """Without what comes later."""


class UnheardEnd(enum.Enum):
    """Why a turn ended that no gateway ended."""

    INTERRUPTED = "interrupted"
    LOST = "lost"
    CANCELLED = "cancelled"
    GIVEN_UP = "given_up"


@value
class JournalEvent:
    """One event. `turn_number` and `expire_ms` are those of a turn that was committed with it; 0 elsewhere.

    The last event of a turn that no gateway ended has no data, but says why.
    """

    id: str
    data: bytes
    turn_number: int = 0
    expire_ms: int = 0
    unheard: UnheardEnd | None = None


@value
class JournalPage:
    """A part of a journal. `ended`: nothing comes behind it. `held`: somebody runs the turn."""

    events: tuple[JournalEvent, ...]
    ended: bool
    held: bool


@value
class ClaimedTurn:
    """A turn to go on with: its new lease, what the gateway that began it wrote for that, and which try this is."""

    lease: Lease
    request: bytes
    attempt: int


class TurnStage(enum.Enum):
    """How far a turn is."""

    QUEUED = 1
    RUNNING = 2
    ENDED = 3


@value
class TurnProgress:
    """How far a turn is, by how many gateways, and the first and the last event of its journal where it has them."""

    stage: TurnStage
    attempt: int
    begun: JournalEvent | None = None
    ended: JournalEvent | None = None
