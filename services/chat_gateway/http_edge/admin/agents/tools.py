"""Tools of agent configs: JSON to and from protobuf."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from chat_gateway.convert.free_form import exact_json_of
from chat_gateway.http_edge.wire.bodies import check_free_form
from chat_gateway.http_edge.wire.times import seconds_of, to_duration
from parley.config.v1 import agent_config_pb2 as pb
from servicekit.errors import InvalidArgument, Violation

MAX_TOOLS = 64
_Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
_NUMBERS = ("max_steps", "max_parallel_calls", "max_result_bytes")
_FLAGS = ("parallel_tool_calls",)
_NAMES = ("allow", "deny", "idempotent")


class ServerToolsJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Tools of a tool server: of the project's (`tool_server`), or the operator's (`operator_tool_server`).

    `approval` says which calls wait for an approval: all, none, or those of the tools named.
    """

    tool_server: str = ""
    operator_tool_server: str = ""
    allow: list[str] = []
    deny: list[str] = []
    approval: Literal["always", "never"] | list[str] = "never"
    required: bool = False
    idempotent: list[str] = []
    forward_user_token: bool = False


class AgentCallJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Another agent of the project as a tool; its id is its name unless another is given."""

    agent_id: str = ""
    name: str = ""
    description: str = ""
    approval: Literal["always", "never"] = "never"


class ClientToolJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A function that the caller runs; `parameters` is the JSON Schema of its arguments."""

    name: str = ""
    description: str = ""
    parameters: dict[str, Any] | UnsetType | None = UNSET
    strict: bool = False


class ToolJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the model may call: exactly one. A text in place of the tools of a server is the tool server's id."""

    mcp: ServerToolsJson | str | UnsetType | None = UNSET
    http: ServerToolsJson | str | UnsetType | None = UNSET
    agent: AgentCallJson | UnsetType | None = UNSET
    client: ClientToolJson | UnsetType | None = UNSET
    a2a: ServerToolsJson | str | UnsetType | None = UNSET


class ToolPolicyJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How tools are used; `call_timeout` is a duration such as `"30s"`."""

    tool_choice: str | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    max_steps: _Int32 | UnsetType | None = UNSET
    max_parallel_calls: _Int32 | UnsetType | None = UNSET
    call_timeout: str | UnsetType | None = UNSET
    max_result_bytes: _Int32 | UnsetType | None = UNSET


def to_tools(tools: list[ToolJson]) -> list[pb.AgentTool]:
    """Returns what a client writes of tools. Raises `InvalidArgument`, `MalformedBody`."""
    found = []
    for index, tool in enumerate(tools[: MAX_TOOLS + 1]):  # one more, and config_svc says that there are too many
        path = f"tools[{index}]"
        given = [name for name in tool.__struct_fields__ if getattr(tool, name) not in (None, UNSET)]
        if len(given) > 1:
            raise InvalidArgument([Violation(path, "exactly one of mcp, http, agent, client and a2a is required")])
        found.append(_to_tool(tool, f"{path}.client.parameters"))
    return found


def tool_json(tool: pb.AgentTool) -> ToolJson:
    """Returns an entry as clients see it."""
    match tool.WhichOneof("kind"):
        case "mcp":
            return ToolJson(mcp=_server_json(tool.mcp))
        case "http":
            return ToolJson(http=_server_json(tool.http))
        case "a2a":
            return ToolJson(a2a=_server_json(tool.a2a))
        case "agent":
            call = tool.agent
            approval: Literal["always", "never"] = "always" if call.approval else "never"
            return ToolJson(
                agent=AgentCallJson(
                    agent_id=call.agent_id, name=call.name, description=call.description, approval=approval
                )
            )
        case "client":
            one = tool.client
            client = ClientToolJson(name=one.name, description=one.description, strict=one.strict)
            if one.HasField("parameters"):
                client.parameters = exact_json_of(one.parameters)
            return ToolJson(client=client)
        case _:
            return ToolJson()


def to_policy(policy: ToolPolicyJson) -> pb.ToolPolicy:
    """Returns what a client writes of how tools are used. Raises `InvalidArgument`."""
    message = pb.ToolPolicy(tool_choice=policy.tool_choice or "")
    for name in (*_NUMBERS, *_FLAGS):
        if isinstance(value := getattr(policy, name), int):
            setattr(message, name, value)
    if isinstance(policy.call_timeout, str):
        message.call_timeout.CopyFrom(to_duration(policy.call_timeout, "tool_policy.call_timeout"))
    return message


def policy_json(policy: Any) -> ToolPolicyJson:
    """Returns how tools are used as clients see it."""
    fields: dict[str, Any] = {name: getattr(policy, name) for name in (*_NUMBERS, *_FLAGS) if policy.HasField(name)}
    if policy.tool_choice:
        fields["tool_choice"] = policy.tool_choice
    if policy.HasField("call_timeout"):
        fields["call_timeout"] = seconds_of(policy.call_timeout)
    return ToolPolicyJson(**fields)


def _to_tool(tool: ToolJson, parameters_path: str) -> pb.AgentTool:
    if tool.mcp not in (None, UNSET):
        return pb.AgentTool(mcp=_to_server(tool.mcp))
    if tool.http not in (None, UNSET):
        return pb.AgentTool(http=_to_server(tool.http))
    if tool.a2a not in (None, UNSET):
        return pb.AgentTool(a2a=_to_server(tool.a2a))
    message = pb.AgentTool()
    if tool.agent:
        call = tool.agent
        message.agent.CopyFrom(
            pb.AgentCall(
                agent_id=call.agent_id,
                name=call.name,
                description=call.description,
                approval=call.approval == "always",
            )
        )
    elif tool.client:
        one = tool.client
        message.client.CopyFrom(pb.ClientTool(name=one.name, description=one.description, strict=one.strict))
        if isinstance(one.parameters, dict):
            check_free_form(one.parameters, parameters_path)
            message.client.parameters.update(one.parameters)
            message.client.parameters.SetInParent()
    return message


def _to_server(tools: ServerToolsJson | str | UnsetType | None) -> pb.ServerTools:
    if not isinstance(tools, ServerToolsJson):
        return pb.ServerTools(tool_server=tools if isinstance(tools, str) else "")
    message = pb.ServerTools(
        tool_server=tools.tool_server,
        operator_tool_server=tools.operator_tool_server,
        required=tools.required,
        forward_user_token=tools.forward_user_token,
        **{name: getattr(tools, name) for name in _NAMES},
    )
    if tools.approval == "always":
        message.approval.always = True
    elif tools.approval != "never":
        message.approval.tools.extend(tools.approval)
    return message


def _server_json(tools: pb.ServerTools) -> ServerToolsJson:
    names = list(tools.approval.tools) or "never"
    return ServerToolsJson(
        tool_server=tools.tool_server,
        operator_tool_server=tools.operator_tool_server,
        approval="always" if tools.approval.always else names,  # type: ignore[arg-type]
        required=tools.required,
        forward_user_token=tools.forward_user_token,
        **{name: list(getattr(tools, name)) for name in _NAMES},
    )
