"""The journal of a turn as values: events as they are serialized, never parsed here."""

from servicekit.values import value
from session_svc.model.session import SessionKey
from session_svc.model.turn import Lease


@value
class NewEvents:
    """Events of a turn that holds its lease; `first` is the number of the first among those added under it, from 1."""

    lease: Lease
    first: int
    events: tuple[bytes, ...]


@value
class TurnWatch:
    """Whose journal is read, and behind which event; empty: from its beginning."""

    key: SessionKey
    user_id: str
    turn_id: str
    after: str = ""


@value
class JournalEvent:
    """One event. `turn_number` and `expire_ms` are those of a turn that was committed with it; 0 elsewhere."""

    id: str
    data: bytes
    turn_number: int = 0
    expire_ms: int = 0


@value
class JournalPage:
    """A part of a journal. `ended`: nothing comes behind it. `held`: somebody runs the turn."""

    events: tuple[JournalEvent, ...]
    ended: bool
    held: bool
