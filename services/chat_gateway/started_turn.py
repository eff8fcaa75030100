"""What is fixed once a turn has begun."""

from datetime import datetime

from access.caller import ANONYMOUS, current
from chat_gateway.agents.toolbox import NO_STEPS, Steps, StepSink
from chat_gateway.limits import turn_limits
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.turn import OnDelta, OnStarted, TurnLimit, TurnRequest
from chat_gateway.scheduler import EnteredTurn
from chat_gateway.turn_tools import CallChain, has_gateway_tools
from servicekit.values import value

_WITHOUT_OTHERS = "assistant"
"""The template whose agents call no tools but those of their configs. Others may have functions, or hand over."""


@value
class StartedTurn:
    """A turn under way: its request, and its listeners."""

    turn_id: str
    time: datetime
    digest: bytes
    request: TurnRequest
    on_started: OnStarted | None
    on_delta: OnDelta | None
    entered: EnteredTurn | None
    """None for the turn of an agent that another one calls: it runs in that one's slot."""
    called_by: CallChain | None = None
    sink: StepSink | None = None
    steps: Steps = NO_STEPS
    """What other gateways have done of the turn."""
    resumed: bool = False
    """Whether this gateway has taken the turn over, whose journal has begun then."""


def keeps_journal(turn: StartedTurn, config: AgentConfig) -> bool:
    """Whether the turn is written down as it goes: it is resumable, or may call tools of the gateway's, also as the
    agent that it is handed over to.

    An agent that another one calls has its caller's journal.
    """
    if turn.request.resumable or turn.resumed:
        return True
    if turn.called_by is not None:
        return False
    return config.template_id != _WITHOUT_OTHERS or (bool(config.tools) and has_gateway_tools(config))


def limits_of(turn: StartedTurn, config: AgentConfig) -> tuple[TurnLimit, ...]:
    """Returns the limits that the turn counts in.

    That of an agent that another one calls counts in its agent's only: its key's counts the turn above. It takes no
    place that a turn above it holds, and so never waits for one.
    """
    if turn.called_by is None:
        return turn_limits(current(), config)
    return () if config.uid in turn.called_by.uids else turn_limits(ANONYMOUS, config)
