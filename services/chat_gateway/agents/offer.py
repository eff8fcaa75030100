"""The tools offered to the model: the agent's, its template's and the caller's."""

from collections.abc import Mapping, Sequence

from chat_gateway.agents.agent import TurnContext
from chat_gateway.agents.functions import FunctionTool
from chat_gateway.agents.toolbox import ApprovedCall
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.errors import ToolServerUnavailable
from chat_gateway.model.pairing import continues
from chat_gateway.model.rules import check_allowed_tools
from chat_gateway.model.tool_names import may_be_named
from chat_gateway.model.tools import (
    ClientTool,
    GatewayTool,
    ListedTools,
    ToolsUnavailable,
    hidden_tools,
    merged_unavailable,
)
from chat_gateway.model.turn import Message, Tool, TurnRequest
from contract.enums import Role
from servicekit.errors import Violations
from servicekit.values import value

CHOICES = frozenset({"auto", "none", "required"})
RETRY_SECONDS = 1.0
_NOTHING = ListedTools(())


@value
class Offer:
    """The tools of one turn. `tools` is sent to the provider; each of them is in exactly one of the other fields."""

    tools: tuple[Tool, ...]
    listed: Mapping[str, GatewayTool]
    functions: Mapping[str, FunctionTool]
    callers: frozenset[str]
    unavailable: tuple[ToolsUnavailable, ...]
    choice: str
    """Of the first step."""

    def runs(self, name: str) -> GatewayTool | None:
        """Returns the gateway's tool with this name."""
        function = self.functions.get(name)
        return function.tool if function is not None else self.listed.get(name)


async def make_offer(config: AgentConfig, context: TurnContext, functions: Sequence[FunctionTool] = ()) -> Offer:
    """Returns the offer of a turn. Raises `InvalidArgument` if the request has a tool with a name in use, or chooses
    one that does not exist, and what `Toolbox.tools` raises.
    """
    request = context.request
    own = {function.tool.name: function for function in functions}
    # The caller runs both: the request's description of a function is newer than the config's.
    brought = {tool.name for tool in request.tools}
    declared = [_as_tool(tool) for tool in config.tools if isinstance(tool, ClientTool) and tool.name not in own]
    callers = [tool for tool in declared if tool.name not in brought]
    taken = own.keys() | {tool.name for tool in declared}
    if context.steps.count:  # the request's tools were there before those of a server that is available only now
        taken |= brought
    found = _NOTHING if context.toolbox is None else await context.toolbox.tools()
    listed = {tool.name: tool for tool in found.tools if tool.name not in taken}
    unavailable = merged_unavailable((), (*found.unavailable, *hidden_tools(found.tools, taken)))
    if not context.steps.count:
        _check(request, own.keys() | listed.keys(), {tool.name for tool in declared}, unavailable)
    if request.allowed_tools:
        known = own.keys() | listed.keys() | {tool.name for tool in declared} | brought
        check_allowed_tools(request, known | _maybe_unavailable(request.allowed_tools, unavailable))
        # Approved calls run, whatever tools are offered now.
        approved = {one.call.name for one in context.approvals}
        own = {name: one for name, one in own.items() if name in request.allowed_tools | approved}
        listed = {
            name: one
            for name, one in listed.items()
            if name in request.allowed_tools | approved or _is_approved(one, context.approvals)
        }
        callers = [tool for tool in callers if tool.name in request.allowed_tools]
    gateway = [tool for name in own for tool in (own[name].tool,)] + list(listed.values())
    tools = [Tool(tool.name, tool.description, tool.parameters) for tool in gateway] + callers + list(request.tools)
    if request.allowed_tools:
        tools = [tool for tool in tools if tool.name in request.allowed_tools]
    return Offer(
        tools=tuple(tools),
        listed=listed,
        functions=own,
        callers=frozenset(tool.name for tool in (*callers, *request.tools)),
        unavailable=unavailable,
        choice=_first_choice(config, context, {tool.name for tool in tools}),
    )


def with_note(messages: list[Message], unavailable: Sequence[ToolsUnavailable]) -> list[Message]:
    """Returns a prompt with a note about unavailable tool servers after the instructions."""
    if not unavailable:
        return messages
    listed = "\n".join(f"- {one.server}: {one.reason}" for one in unavailable)
    note = Message(Role.SYSTEM, f"Some tools are unavailable in this turn:\n{listed}")
    head = next((place for place, one in enumerate(messages) if one.role is not Role.SYSTEM), len(messages))
    return [*messages[:head], note, *messages[head:]]


def _is_approved(tool: GatewayTool, approvals: Sequence[ApprovedCall]) -> bool:
    return any(
        one.server == tool.server and may_be_named(one.call.name, tool.server, tool.own_name or tool.name)
        for one in approvals
    )


def _maybe_unavailable(names: frozenset[str], unavailable: Sequence[ToolsUnavailable]) -> set[str]:
    return {name for name in names if any(one.may_have(name) for one in unavailable)}


def _check(request: TurnRequest, taken: set[str], declared: set[str], unavailable: Sequence[ToolsUnavailable]) -> None:
    found = Violations()
    for number, tool in enumerate(request.tools):
        if tool.name in taken:
            found.add(f"tools[{number}].name", "is the name of one of the agent's own tools")
    choice = request.tool_choice
    if choice and choice not in CHOICES | taken | declared | {tool.name for tool in request.tools}:
        lacking = next((one for one in unavailable if one.may_have(choice)), None)
        if lacking is not None:
            raise ToolServerUnavailable(lacking.server, lacking.reason, retry_after=RETRY_SECONDS)
        found.add("tool_choice", "must be auto, none, required, or the name of a tool")
    found.check()


def _first_choice(config: AgentConfig, context: TurnContext, names: set[str]) -> str:
    if context.steps.count:
        return ""
    request = context.request
    if request.tool_choice:
        return request.tool_choice
    choice = config.tool_policy.tool_choice
    # A turn that continues with calls has had its first step.
    goes_on = bool(context.approvals) or continues(request.messages)
    return choice if choice and not goes_on and (choice in CHOICES or choice in names) else ""


def _as_tool(tool: ClientTool) -> Tool:
    return Tool(tool.name, tool.description, tool.parameters, tool.strict)
