"""What an agent is to a turn."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from chat_gateway.agents.toolbox import NO_STEPS, ApprovedCall, CallMetrics, Steps, StepSink, Toolbox
from chat_gateway.model.turn import Answer, Message, OnDelta, TurnRequest
from servicekit.values import value


class HandOver(Protocol):
    """Lets another agent of the project do the agent's part of a turn."""

    async def __call__(self, agent_id: str, context: "TurnContext", on_delta: OnDelta | None) -> Answer:
        """Returns that agent's answer, from this session's window, with its own instructions, model and tools.

        Raises `AgentNotFound`, `AgentDepthExceeded` where agents hand over to one another too often, and what the
        agent raises.
        """
        ...


@value
class TurnContext:
    """What an agent gets to answer from: the window of the session, and the caller's request."""

    request: TurnRequest
    window: Sequence[Message]
    metadata: Mapping[str, str]
    toolbox: Toolbox | None = None
    """The tools of the agent config that the gateway runs; None where it names none. For the tool loop."""
    approvals: tuple[ApprovedCall, ...] = ()
    """The calls that the turn before ended with, decided."""
    steps: Steps = NO_STEPS
    """What an earlier attempt of the turn has done."""
    sink: StepSink | None = None
    hand_over: HandOver | None = None
    """None in a preview, which calls no model."""
    calls: CallMetrics | None = None
    """What counts calls of a template's functions."""


class Agent(Protocol):
    """An agent instance. Built from one revision, used by many turns at a time: it keeps nothing of any turn."""

    def prompt(self, context: TurnContext) -> list[Message]:
        """Returns the messages that the first model call of the turn would send."""
        ...

    async def respond(self, context: TurnContext, on_delta: OnDelta | None) -> Answer:
        """Does the agent's part of one turn.

        Gives each piece of the answer to `on_delta` as it comes; None: the caller wants the whole only. Raises
        `ServiceError`. When cancelled it stops what it started and re-raises.
        """
        ...
