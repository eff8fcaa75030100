"""What session_svc keeps of turns, and what it answers of them. Values only."""

from collections.abc import Mapping
from datetime import datetime

from chat_gateway.model.tools import ToolRun
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import (
    NO_DETAILS,
    AnswerDetails,
    FinishReason,
    LimitState,
    Message,
    TurnRequest,
)
from chat_gateway.model.usage import Usage
from servicekit.values import value


@value
class Turn:
    """A turn as it is stored."""

    id: str
    messages: tuple[Message, ...]
    agent_revision: int
    usage: Usage
    finish_reason: FinishReason
    begin_time: datetime
    model: str
    number: int = 0
    details: AnswerDetails = NO_DETAILS
    history_digest: bytes = b""
    """Of all that was said with this turn; empty where it is not known."""
    cut_after: int | None = None
    """The turns of the session behind this number go when the turn is committed."""
    answer_start: int | None = None
    """The place of the first message that the agent did; None: the last one is all of it."""
    awaiting: tuple[str, ...] = ()
    """The ids of the calls that wait for an approval, which the next turn brings."""
    runs: tuple[ToolRun, ...] = ()
    """The calls that the gateway ran."""
    notes: bytes = b""
    """As `TurnRequest.notes`."""
    end_time: datetime | None = None
    """When the answer was complete, of a turn that has notes."""
    listed: ToolsListed | None = None
    """The tools that the model was offered; None where nobody asked."""


@value
class Lease:
    """The right to go on with a turn."""

    project: str
    session_id: str
    turn_id: str
    token: int
    expire_time: datetime
    limits: tuple[str, ...] = ()
    """The subjects of the limits in which the turn holds a place; the lease of a stateless turn holds nothing else."""
    journaled: bool = False
    """Whether the turn has written to its journal, which its end then ends."""
    goes_on: bool = False
    """Whether another gateway can go on with the turn: its journal has what that takes."""
    attempt: int = 1
    """Which gateway this is that runs the turn."""


@value
class Begun:
    """What BeginTurn answers: a lease with the window, or the stored turn of a repeated request."""

    session_id: str
    created: bool
    message_count: int
    pinned_revision: int
    metadata: Mapping[str, str]
    expire_time: datetime | None
    lease: Lease | None
    window: tuple[Message, ...]
    replayed: Turn | None
    limits: tuple[LimitState, ...] = ()
    history_digest: bytes = b""
    """Of all that was said; empty where it is not known."""
    awaiting: tuple[str, ...] = ()
    """The ids of the calls of the last turn that wait for an approval."""
    full_turns: int = 0
    """As many turns as the session may have, where it has them: it takes none but one that cuts others. 0 otherwise."""
    joined_turn_id: str = ""
    """A turn of the same request that is queued or under way, where the request is for a background turn."""
    part_bytes: int = 0
    """Of the images, audio and files that the session keeps beside its turns: the window may name some."""


def begun_stateless(request: TurnRequest, lease: Lease | None = None, limits: tuple[LimitState, ...] = ()) -> Begun:
    """Returns what a stateless turn begins with: nothing but what the request and its limits say."""
    return Begun(
        session_id="",
        created=False,
        message_count=0,
        pinned_revision=0,
        metadata=request.metadata,
        expire_time=None,
        lease=lease,
        window=(),
        replayed=None,
        limits=limits,
    )


@value
class Committed:
    """What CommitTurn answers."""

    turn_number: int
    expire_time: datetime
