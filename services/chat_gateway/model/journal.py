"""Values of a turn's journal, from which its stream or the turn itself can be continued."""

import re
from datetime import datetime

from chat_gateway.model.tools import CalledTool, CallFinished, CallStarted, StepFinished, ToolsUnavailable, TurnResumed
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import Delta, Message, TurnOutcome
from chat_gateway.model.usage import Usage
from servicekit.errors import ServiceError
from servicekit.values import value

_EVENT_ID = re.compile(r"[0-9]{1,16}-[0-9]{1,16}")


@value
class TurnBegun:
    """The turn has begun: always first."""

    agent_id: str
    agent_revision: int
    session_created: bool
    begin_time: datetime
    request: bytes = b""
    """What another gateway needs to continue the turn; empty if none can."""
    notes: bytes = b""
    """As `TurnRequest.notes`."""


@value
class StepCalled:
    """The model has requested calls with this message; `usage` is that of the turn so far."""

    step: int
    message: Message
    usage: Usage
    tools: tuple[CalledTool, ...] = ()
    """Those of the message's calls that the gateway runs."""
    unavailable: tuple[ToolsUnavailable, ...] = ()
    handed_to: tuple[str, ...] = ()
    """The agents to which the turn was handed over, one after the other."""


@value
class CallRecorded:
    """A call has this result for the model."""

    event: CallFinished
    content: str


JournalEntry = TurnBegun | TurnResumed | ToolsListed | Delta | CallStarted | CallRecorded | StepCalled | StepFinished
"""What is written while the turn runs; its end comes with the commit or the abort."""


@value
class UnwrittenEntries:
    """The rest of a turn's journal, which is committed with the turn; `first` as for `Sessions.append`."""

    first: int
    entries: tuple[JournalEntry, ...]


@value
class JournalEvent:
    """An entry of the journal, or the end of the turn; watching continues after `id`."""

    id: str
    entry: JournalEntry | TurnOutcome | ServiceError


def event_place(event_id: str) -> tuple[int, ...] | None:
    """Returns the position of an event, comparable; () for no event, None for an invalid id."""
    if not event_id:
        return ()
    return tuple(map(int, event_id.split("-"))) if _EVENT_ID.fullmatch(event_id) else None
