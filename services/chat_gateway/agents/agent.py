"""The interface of agents."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from chat_gateway.agents.toolbox import NO_STEPS, ApprovedCall, CallMetrics, Steps, StepSink, Toolbox
from chat_gateway.model.turn import Answer, Message, OnDelta, TurnRequest
from chat_gateway.model.usage import NO_USAGE, Usage
from servicekit.values import value


class HandOver(Protocol):
    """Hands the agent's part of a turn over to another agent of the project."""

    async def __call__(self, agent_id: str, context: "TurnContext", on_delta: OnDelta | None) -> Answer:
        """Returns that agent's answer, from this session's window, with its own instructions, model and tools.

        Raises `AgentNotFound`, `AgentDepthExceeded` if agents hand over to one another too often, and what the agent
        raises.
        """
        ...


@value
class TurnContext:
    """The input of an agent: the window of the session, and the caller's request."""

    request: TurnRequest
    window: Sequence[Message]
    metadata: Mapping[str, str]
    toolbox: Toolbox | None = None
    """The tools of the agent config that the gateway runs, for the tool loop; None without any."""
    approvals: tuple[ApprovedCall, ...] = ()
    """The decided calls with which the previous turn ended."""
    steps: Steps = NO_STEPS
    """The steps of an earlier attempt of the turn."""
    sink: StepSink | None = None
    hand_over: HandOver | None = None
    """None in a preview, which does not call the model."""
    handed_to: tuple[str, ...] = ()
    """The agents to which the turn was handed over so far."""
    spent: Usage = NO_USAGE
    """Tokens of those that handed over, for the choice; they add them to their answer's usage themselves."""
    goes_on_with: tuple[str, ...] = ()
    """The agents to which an earlier attempt of the turn was handed over from here, or the turn whose calls it brings
    approvals or results of. Those calls are theirs: no other agents can go on with them.
    """
    calls: CallMetrics | None = None
    """Counts calls of a template's functions."""


class Agent(Protocol):
    """An agent instance, built from one revision. It serves many turns at a time and keeps no state of any."""

    def prompt(self, context: TurnContext) -> list[Message]:
        """Returns the messages that the first model call of the turn would send."""
        ...

    async def respond(self, context: TurnContext, on_delta: OnDelta | None) -> Answer:
        """Does the agent's part of one turn. Passes each piece of the answer to `on_delta`; None means that only the
        whole answer is wanted. Raises `ServiceError`. When cancelled it stops what it started and re-raises.
        """
        ...
