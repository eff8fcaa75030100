"""Tools of agent configs as config_svc has them; defaults are those that agent_config.proto states."""

from collections.abc import Iterable

from chat_gateway.convert.free_form import exact_json_of
from chat_gateway.convert.times import from_duration
from chat_gateway.model.tools import DEFAULT_TOOL_POLICY, AgentCall, AgentTool, ClientTool, ServerTools, ToolPolicy
from parley.config.v1 import agent_config_pb2 as pb


def tools_from_proto(tools: Iterable[pb.AgentTool]) -> tuple[AgentTool, ...]:
    """Returns what the model may call; kinds that this release does not know are left out."""
    return tuple(tool for one in tools if (tool := _tool(one)) is not None)


def policy_from_proto(config: pb.AgentConfig) -> ToolPolicy:
    """Returns how tools are used."""
    if not config.HasField("tool_policy"):
        return DEFAULT_TOOL_POLICY
    policy, default = config.tool_policy, DEFAULT_TOOL_POLICY
    timed = policy.HasField("call_timeout")
    return ToolPolicy(
        tool_choice=policy.tool_choice,
        parallel_tool_calls=policy.parallel_tool_calls if policy.HasField("parallel_tool_calls") else None,
        max_steps=policy.max_steps if policy.HasField("max_steps") else default.max_steps,
        max_parallel_calls=(
            policy.max_parallel_calls if policy.HasField("max_parallel_calls") else default.max_parallel_calls
        ),
        call_timeout=from_duration(policy.call_timeout).total_seconds() if timed else default.call_timeout,
        max_result_bytes=policy.max_result_bytes if policy.HasField("max_result_bytes") else default.max_result_bytes,
    )


def _tool(tool: pb.AgentTool) -> AgentTool | None:
    match tool.WhichOneof("kind"):
        case "mcp":
            return _server_tools(tool.mcp)
        case "http":
            return _server_tools(tool.http)
        case "a2a":
            return _server_tools(tool.a2a)
        case "agent":
            call = tool.agent
            return AgentCall(call.agent_id, call.name or call.agent_id, call.description, call.approval)
        case "client":
            one = tool.client
            parameters = exact_json_of(one.parameters) if one.HasField("parameters") else None
            return ClientTool(one.name, one.description, parameters, one.strict)
        case _:
            return None


def _server_tools(tools: pb.ServerTools) -> ServerTools:
    return ServerTools(
        tool_server=tools.tool_server,
        operator_tool_server=tools.operator_tool_server,
        allow=frozenset(tools.allow),
        deny=frozenset(tools.deny),
        approval_always=tools.approval.always,
        approval=frozenset(tools.approval.tools),
        required=tools.required,
        idempotent=frozenset(tools.idempotent),
        forward_user_token=tools.forward_user_token,
    )
