"""Values of turns that run without their callers."""

import enum
from datetime import datetime

from access.caller import Caller
from chat_gateway.model.stored_turn import Lease
from chat_gateway.model.turn import TurnOutcome, TurnRequest
from servicekit.errors import ServiceError
from servicekit.values import value


@value
class ResumableTurn:
    """What a gateway needs to continue a turn that another one began; defaults are resolved, so that it keeps its
    meaning. It has the caller's properties that matter to the turn, but no credential.
    """

    request: TurnRequest
    caller: Caller
    agent_revision: int
    digest: bytes
    begin_time: datetime


@value
class ClaimedTurn:
    """A turn that this gateway has taken over; `turn` is None if a later release wrote it in an unknown form."""

    lease: Lease
    turn: ResumableTurn | None


@value
class NothingClaimed:
    """There was no turn to take over; `held`: the call waited for one, and the next may follow at once."""

    held: bool = False


class TurnStatus(enum.StrEnum):
    """The state of a turn."""

    QUEUED = "queued"
    RUNNING = "running"
    """Also while its gateway is lost and another one is about to take over."""
    FINISHED = "finished"
    REQUIRES_APPROVAL = "requires_approval"
    """It has ended, and the next turn of the session decides on its pending calls."""
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({TurnStatus.FINISHED, TurnStatus.REQUIRES_APPROVAL, TurnStatus.FAILED, TurnStatus.CANCELLED})


@value
class TurnState:
    """A turn as its user sees it. `outcome` is there once it is stored, `error` once it has failed or was cancelled.

    `agent_id`, `agent_revision` and `begin_time` are not known of a turn that runs without a journal.
    """

    turn_id: str
    session_id: str
    status: TurnStatus
    agent_id: str = ""
    agent_revision: int = 0
    begin_time: datetime | None = None
    attempt: int = 1
    """How many gateways have run it."""
    outcome: TurnOutcome | None = None
    error: ServiceError | None = None


@value
class TurnOfUser:
    """Which turn is meant, of the user's session."""

    project: str
    session_id: str
    user_id: str
    turn_id: str


@value
class TurnProgress:
    """session_svc's record of a running or recently ended turn."""

    status: TurnStatus
    attempt: int
    agent_id: str = ""
    agent_revision: int = 0
    begin_time: datetime | None = None
    ended: TurnOutcome | ServiceError | None = None
