"""Tools and the outcomes of their calls. Values only."""

import enum
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any

from chat_gateway.model.tool_names import may_be_named
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

    @property
    def server(self) -> str:
        """The id of the tool server, whoever's it is."""
        return self.tool_server or self.operator_tool_server


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
    """A tool that the gateway runs, as offered to the model.

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
    own_name: str = ""
    """Its name at its server; empty: `name`."""


MAX_UNAVAILABLE = 64
MAX_UNAVAILABLE_REASON = 500
"""Characters."""


@value
class ToolsUnavailable:
    """An unavailable tool server, or some of its tools, and the reason as text for the model and the caller."""

    server: str
    reason: str
    only: frozenset[str] | None = None
    """The server's own names of the missing tools; None: all of them, whatever they are, but for `denied`."""
    denied: frozenset[str] = frozenset()

    def may_have(self, name: str) -> bool:
        """Whether the tool that is called by this name may be one of the missing ones."""
        if self.only is not None:
            return any(may_be_named(name, self.server, own) for own in self.only - self.denied)
        return not any(may_be_named(name, self.server, own) for own in self.denied)


def all_unavailable(named: ServerTools, reason: str) -> ToolsUnavailable:
    """Returns that none of a server's tools can be used."""
    return ToolsUnavailable(named.server, reason, named.allow or None, named.deny)


def hidden_tools(tools: Iterable[GatewayTool], names: Container[str]) -> tuple[ToolsUnavailable, ...]:
    """Returns the tools whose names are already those of other tools: they are named, so none vanishes silently."""
    return tuple(
        ToolsUnavailable(
            tool.server, f"the name {tool.name!r} is used by another tool", frozenset({tool.own_name or tool.name})
        )
        for tool in tools
        if tool.name in names
    )


def merged_unavailable(
    first: tuple[ToolsUnavailable, ...], more: tuple[ToolsUnavailable, ...]
) -> tuple[ToolsUnavailable, ...]:
    """Returns both within the bounds of what is stored, each server and reason once."""
    if not more:
        return first
    known = {(one.server, one.reason): one for one in first}
    for one in more:
        reason = one.reason[:MAX_UNAVAILABLE_REASON]
        known.setdefault((one.server, reason), one if reason == one.reason else replace(one, reason=reason))
    return tuple(known.values())[:MAX_UNAVAILABLE]


@value
class CalledTool:
    """The tool of a call when the model requested it. Another gateway may not reach its server."""

    call_id: str
    server: str
    needs_approval: bool = False


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
    """The outcome of a tool call, as in metrics and events."""

    OK = "ok"
    ERROR = "error"
    """The tool answered with an error."""
    INVALID_ARGUMENTS = "invalid_arguments"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    DENIED = "denied"
    """Rejected by an approval, or refused by the egress rules."""
    UNKNOWN = "unknown"
    """It may have been carried out or not: the gateway that made the call was lost."""


@value
class ToolResult:
    """The result of a call for the model. `text` is within the policy's bound and never contains a secret."""

    text: str
    outcome: ToolOutcome = ToolOutcome.OK
    usage: Usage = NO_USAGE
    """Tokens used by the call, if another agent ran."""


@value
class CallStarted:
    """A call that the gateway runs has begun, in the step of this number (from 1).

    `unavailable` is of the first event of a gateway in a turn, as in `StepCalled`: the tools that it was without.
    """

    step: int
    call_id: str
    name: str
    arguments: str
    server: str
    unavailable: tuple[ToolsUnavailable, ...] = ()


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
    """The result for the model."""
    usage: Usage = NO_USAGE
    """As `ToolResult.usage`."""


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
    """Another gateway continues the turn: the output of this step so far is discarded."""

    step: int
    attempt: int


ToolActivity = CallStarted | CallFinished | StepFinished | TurnResumed | ToolsListed
"""A turn's actions beside its answer, as streamed to callers."""


@value
class PendingApproval:
    """A call that the gateway runs once it is approved; arguments are the model's JSON text."""

    call_id: str
    name: str
    arguments: str


@value
class Approval:
    """The user's decision about a pending call; the model sees the note of a rejection."""

    call_id: str
    approve: bool
    note: str = ""
