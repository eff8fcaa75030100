"""What an agent may call, and what calls come to. Values only."""

import enum
from collections.abc import Mapping
from typing import Any

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
