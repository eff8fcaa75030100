"""Stored turns, and the results of session_svc's calls. Values only."""

import time
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime

from chat_gateway.model.tools import ToolRun, ToolsUnavailable
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
    """The history digest including this turn; empty if unknown."""
    cut_after: int | None = None
    """Turns of the session after this number are removed by the commit."""
    answer_start: int | None = None
    """The index of the agent's first message; None: only the last message is the agent's."""
    awaiting: tuple[str, ...] = ()
    """The ids of the calls that wait for an approval, which the next turn brings."""
    runs: tuple[ToolRun, ...] = ()
    """The calls that the gateway ran."""
    notes: bytes = b""
    """As `TurnRequest.notes`."""
    end_time: datetime | None = None
    """When the answer was complete, for a turn with notes."""
    listed: ToolsListed | None = None
    """The tools that were offered to the model; None unless requested."""
    unavailable: tuple[ToolsUnavailable, ...] = ()
    """The tools that the turn was without."""
    handed_to: tuple[str, ...] = ()
    """The agents to which the turn was handed over, one after the other."""


@value
class Lease:
    """The lease of a turn."""

    project: str
    session_id: str
    turn_id: str
    token: int
    expire_time: datetime
    limits: tuple[str, ...] = ()
    """The subjects of the limits in which the turn holds a place; the lease of a stateless turn holds nothing else."""
    journaled: bool = False
    """Whether the turn has written a journal, which must then be ended with the turn."""
    goes_on: bool = False
    """Whether another gateway can continue the turn, since its journal has everything needed."""
    attempt: int = 1
    """The number of the gateway that runs the turn."""
    ends: float | None = field(default=None, compare=False)
    """When it ends at the earliest, by this process's `time.monotonic()`; None where session_svc does not say."""

    @property
    def has_ended(self) -> bool:
        """Whether the lease may have ended. Clocks that are set do not matter, except with an older session_svc."""
        if self.ends is None:
            return datetime.now(UTC) >= self.expire_time
        return time.monotonic() >= self.ends


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
    """The history digest; empty if unknown."""
    awaiting: tuple[str, ...] = ()
    """The ids of the calls of the last turn that wait for an approval."""
    awaiting_servers: Mapping[str, str] = field(default_factory=dict)
    """By id of such a call: who was to run it when it was requested, where that is known."""
    handed_to: tuple[str, ...] = ()
    """The agents to which the last turn was handed over."""
    begun_calls: tuple[str, ...] = ()
    """Those of them that were approved before, and begun by a turn that was not stored."""
    full_turns: int = 0
    """The maximum number of turns, if the session has reached it and accepts only a turn that replaces some; else 0."""
    joined_turn_id: str = ""
    """A turn of the same request that is queued or under way, where the request is for a background turn."""
    part_bytes: int = 0
    """Bytes of images, audio and files kept beside the turns, to which the window may refer."""


def begun_stateless(request: TurnRequest, lease: Lease | None = None, limits: tuple[LimitState, ...] = ()) -> Begun:
    """Returns the beginning of a stateless turn."""
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
    event_id: str = ""
    """That of the last journal entry that was committed with the turn."""
