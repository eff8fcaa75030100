"""What an agent may call, and what calls come to. Values only."""

import enum
from collections.abc import Mapping
from typing import Any

from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.usage import NO_USAGE, Usage
from servicekit.values import value

DEFAULT_MAX_STEPS = 16
DEFAULT_MAX_PARALLEL_CALLS = 8
DEFAULT_CALL_TIMEOUT = 30.0
DEFAULT_MAX_RESULT_BYTES = 64 * 1024


@value
class ServerTools:
    """Tools of a tool server: of the project, or of the gateway's operator (`PARLEY_TOOL_SERVERS`)."""

    tool_server: str = ""
    operator_tool_server: str = ""
    allow: frozenset[str] = frozenset()
    """Empty: all."""
    deny: frozenset[str] = frozenset()
    approval_always: bool = False
    approval: frozenset[str] = frozenset()
    required: bool = False
    idempotent: frozenset[str] = frozenset()
    forward_user_token: bool = False


@value
class AgentCall:
    """Another agent of the project as a tool, under `name`."""

    agent_id: str
    name: str
    description: str
    approval: bool = False


@value
class ClientTool:
    """A function that the caller runs; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool = False


@value
class ToolPolicy:
    """How an agent uses tools; seconds and bytes."""

    tool_choice: str = ""
    parallel_tool_calls: bool | None = None
    max_steps: int = DEFAULT_MAX_STEPS
    max_parallel_calls: int = DEFAULT_MAX_PARALLEL_CALLS
    call_timeout: float = DEFAULT_CALL_TIMEOUT
    max_result_bytes: int = DEFAULT_MAX_RESULT_BYTES


DEFAULT_TOOL_POLICY = ToolPolicy()

AgentTool = ServerTools | AgentCall | ClientTool


@value
class GatewayTool:
    """A tool that the gateway runs, as the model is offered it.

    `name` is unique among the tools of a turn. `idempotent`: a repeat after a crash does no harm (MCP's annotations
    readOnlyHint and idempotentHint, HTTP's methods, or the agent config).
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    server: str
    """Who runs it, for metrics and events: a tool server's id, or an agent's."""
    idempotent: bool = False
    needs_approval: bool = False


@value
class ToolsUnavailable:
    """A tool server whose tools can't be had at present, and why, in words for the model and the caller."""

    server: str
    reason: str


@value
class ListedTools:
    """The tools of one turn that the gateway runs, and the servers that are missing."""

    tools: tuple[GatewayTool, ...]
    unavailable: tuple[ToolsUnavailable, ...] = ()


class ToolKind(enum.StrEnum):
    """Who runs a tool, as metrics name it."""

    SERVER = "server"
    AGENT = "agent"
    FUNCTION = "function"
    """A template's own code."""


class ToolOutcome(enum.StrEnum):
    """How a call of a tool ended; what metrics and events name."""

    OK = "ok"
    ERROR = "error"
    """The tool answered with an error."""
    INVALID_ARGUMENTS = "invalid_arguments"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    DENIED = "denied"
    """Rejected by an approval, or refused by the egress rules."""
    UNKNOWN = "unknown"
    """It may have run or not: the gateway that made the call was lost."""


@value
class ToolResult:
    """What the model is told of a call. `text` is within the policy's bound and never holds a secret."""

    text: str
    outcome: ToolOutcome = ToolOutcome.OK
    usage: Usage = NO_USAGE
    """Tokens of the model calls that were made for it: those of another agent."""


@value
class CallStarted:
    """A call that the gateway runs has begun, in the step of this number (from 1)."""

    step: int
    call_id: str
    name: str
    arguments: str
    server: str


@value
class CallFinished:
    """A call has its result, which the turn keeps."""

    step: int
    call_id: str
    name: str
    server: str
    outcome: ToolOutcome
    seconds: float
    content: str = ""
    """What the model is told."""


@value
class StepFinished:
    """A model call, with all calls of the gateway's tools that it asked for, is over; another step follows."""

    step: int
    usage: Usage
    """Of the whole turn so far."""


@value
class ToolRun:
    """A call that the gateway ran, or that waits for an approval to be run.

    `name` and `arguments` are set where the call is of the turn before, which waited for an approval.
    """

    call_id: str
    server: str
    outcome: ToolOutcome = ToolOutcome.OK
    name: str = ""
    arguments: str = ""


@value
class TurnResumed:
    """Another gateway goes on with the turn: what the model had said of this step does not count any more."""

    step: int
    attempt: int


ToolActivity = CallStarted | CallFinished | StepFinished | TurnResumed | ToolsListed
"""What a turn does beside its answer, as callers see it while it happens."""


@value
class PendingApproval:
    """A call that the gateway runs once it is approved; arguments are the model's JSON text."""

    call_id: str
    name: str
    arguments: str


@value
class Approval:
    """What the session's user says of a call that waits for it; the model reads the note of a rejection."""

    call_id: str
    approve: bool
    note: str = ""
