"""What an agent may call, and how: the tools of an agent config."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import timedelta

from config_svc.model import rules
from config_svc.model.json_form import encoded
from config_svc.model.rules import KIB, Json
from contract.fields import check_resource_id
from servicekit.errors import Violations

MAX_TOOLS = 64
MAX_TOOL_NAMES = 256
MAX_TOOLS_BYTES = 256 * KIB
MAX_SCHEMA_BYTES = 64 * KIB
TOOL_CHOICES = ("auto", "none", "required")

_MAX_DESCRIPTION = 4096
_MAX_NAME = 128
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_tool_name(found: Violations, field: str, name: str) -> None:
    """Reports a text that can't be the name of a function (OpenAI's rule)."""
    if not name:
        found.add(field, "is required")
    elif not _NAME.fullmatch(name):
        found.add(field, "must be 1 to 64 of A-Z a-z 0-9 _ -")


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """Which calls of tools wait for an approval."""

    always: bool = False
    tools: tuple[str, ...] = ()

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        _check_names(found, f"{path}.tools", self.tools)


@dataclass(frozen=True, slots=True)
class ServerTools:
    """Tools of a tool server."""

    tool_server: str = ""
    operator_tool_server: str = ""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    approval: ApprovalPolicy | None = None
    required: bool = False
    idempotent: tuple[str, ...] = ()
    forward_user_token: bool = False

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        if bool(self.tool_server) == bool(self.operator_tool_server):
            found.add(f"{path}.tool_server", "exactly one of tool_server and operator_tool_server is required")
        if self.tool_server:
            check_resource_id(found, f"{path}.tool_server", self.tool_server)
        rules.check_text(found, f"{path}.operator_tool_server", self.operator_tool_server, maximum=63)
        for name in ("allow", "deny", "idempotent"):
            _check_names(found, f"{path}.{name}", getattr(self, name))
        if self.approval is not None:
            self.approval.check(found, f"{path}.approval")


@dataclass(frozen=True, slots=True)
class AgentCall:
    """Another agent of the project as a tool."""

    agent_id: str = ""
    name: str = ""
    description: str = ""
    approval: bool = False

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        check_resource_id(found, f"{path}.agent_id", self.agent_id)
        if self.name:
            check_tool_name(found, f"{path}.name", self.name)
        rules.check_text(found, f"{path}.description", self.description, maximum=_MAX_DESCRIPTION, required=True)


@dataclass(frozen=True, slots=True)
class ClientTool:
    """A function that the caller runs. That `parameters` is a JSON Schema is checked with the transaction's checks."""

    name: str = ""
    description: str = ""
    parameters: dict[str, Json] | None = None
    strict: bool = False

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        check_tool_name(found, f"{path}.name", self.name)
        rules.check_text(found, f"{path}.description", self.description, maximum=_MAX_DESCRIPTION)
        if self.parameters is not None:
            rules.check_json(found, f"{path}.parameters", self.parameters, maximum=MAX_SCHEMA_BYTES)


@dataclass(frozen=True, slots=True)
class AgentTool:
    """One entry: of the kinds, exactly one is set."""

    mcp: ServerTools | None = None
    http: ServerTools | None = None
    agent: AgentCall | None = None
    client: ClientTool | None = None
    a2a: ServerTools | None = None

    @property
    def kinds(self) -> list[tuple[str, ServerTools | AgentCall | ClientTool]]:
        """The kinds that are set, by name."""
        return [(one.name, getattr(self, one.name)) for one in fields(self) if getattr(self, one.name) is not None]

    @property
    def name(self) -> str:
        """What the model calls it by; empty for tools of servers, which have names of their own."""
        if self.agent is not None:
            return self.agent.name or self.agent.agent_id
        return self.client.name if self.client is not None else ""

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        kinds = self.kinds
        if len(kinds) != 1:
            found.add(path, "exactly one of mcp, http, agent, client and a2a is required")
        for kind, tool in kinds:
            tool.check(found, f"{path}.{kind}")

    def encoded(self) -> dict[str, Json]:
        """Returns the JSON form, with set fields only."""
        return encoded(self)


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """How tools are used."""

    tool_choice: str = ""
    parallel_tool_calls: bool | None = None
    max_steps: int | None = None
    max_parallel_calls: int | None = None
    call_timeout: timedelta | None = None
    max_result_bytes: int | None = None

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        rules.check_text(found, f"{path}.tool_choice", self.tool_choice, maximum=_MAX_NAME)
        rules.check_number(found, f"{path}.max_steps", self.max_steps, minimum=1, maximum=128)
        rules.check_number(found, f"{path}.max_parallel_calls", self.max_parallel_calls, minimum=1, maximum=64)
        rules.check_duration(
            found,
            f"{path}.call_timeout",
            self.call_timeout,
            minimum=timedelta(seconds=1),
            maximum=timedelta(minutes=10),
        )
        rules.check_number(found, f"{path}.max_result_bytes", self.max_result_bytes, minimum=KIB, maximum=KIB * KIB)


DEFAULT_POLICY = ToolPolicy()


def check_tools(found: Violations, path: str, tools: Sequence[AgentTool], policy: ToolPolicy, policy_path: str) -> None:
    """Reports every broken rule of the tools and their policy, and what in them does not fit together."""
    if len(tools) > MAX_TOOLS:
        found.add(path, f"must have at most {MAX_TOOLS} entries")
    names: set[str] = set()
    for index, tool in enumerate(tools[:MAX_TOOLS]):
        tool.check(found, f"{path}[{index}]")
        if tool.name and tool.name in names:
            found.add(f"{path}[{index}]", f"is a duplicate: another tool is called {tool.name[:64]!r}")
        names.add(tool.name)
    if tools_bytes(tools) > MAX_TOOLS_BYTES:
        found.add(path, f"must have at most {MAX_TOOLS_BYTES} bytes as JSON")
    policy.check(found, policy_path)
    served = any(isinstance(one, ServerTools) for tool in tools for _, one in tool.kinds)
    if policy.tool_choice and policy.tool_choice not in (*TOOL_CHOICES, *names) and not served:
        found.add(
            f"{policy_path}.tool_choice", f"must be one of {', '.join(TOOL_CHOICES)}, or the name of one of the tools"
        )


def tools_bytes(tools: Sequence[AgentTool]) -> int:
    """Returns how many bytes the tools have as JSON."""
    return sum(len(rules.canonical(tool.encoded()).encode()) + 1 for tool in tools)


def _check_names(found: Violations, path: str, names: Sequence[str]) -> None:
    if len(names) > MAX_TOOL_NAMES:
        found.add(path, f"must have at most {MAX_TOOL_NAMES} entries")
    for index, name in enumerate(names[:MAX_TOOL_NAMES]):
        rules.check_text(found, f"{path}[{index}]", name, maximum=_MAX_NAME, required=True)
