"""Tools of agent configs, between the contract's messages and the domain's values."""

from collections.abc import Sequence
from itertools import islice

from config_svc.edge.json_objects import object_of, struct
from config_svc.edge.optional_fields import duration_of, set_or_none
from config_svc.model.agent import AgentSpec
from config_svc.model.tools import (
    DEFAULT_POLICY,
    MAX_SCHEMA_BYTES,
    MAX_TOOL_NAMES,
    MAX_TOOLS,
    AgentCall,
    AgentTool,
    ApprovalPolicy,
    ClientTool,
    ServerTools,
    ToolPolicy,
)
from parley.config.v1 import agent_config_pb2 as pb


def tools_of(tools: Sequence[pb.AgentTool], path: str) -> tuple[AgentTool, ...]:
    """Returns the tools of an agent config; raises as `object_of`."""
    # One more than there may be, and there are too many; the same with names.
    return tuple(_tool_of(tool, f"{path}[{index}]") for index, tool in enumerate(islice(tools, MAX_TOOLS + 1)))


def policy_of(policy: pb.ToolPolicy) -> ToolPolicy:
    """Returns how tools are used."""
    return ToolPolicy(
        tool_choice=policy.tool_choice,
        parallel_tool_calls=set_or_none(policy, "parallel_tool_calls"),
        max_steps=set_or_none(policy, "max_steps"),
        max_parallel_calls=set_or_none(policy, "max_parallel_calls"),
        call_timeout=duration_of(policy, "call_timeout"),
        max_result_bytes=set_or_none(policy, "max_result_bytes"),
    )


def fill_tools(message: pb.AgentConfig, spec: AgentSpec) -> None:
    """Sets the tools and their policy in the message of an agent config."""
    message.tools.extend(_to_proto(tool) for tool in spec.tools)
    policy = spec.tool_policy
    if policy == DEFAULT_POLICY:
        return
    message.tool_policy.CopyFrom(
        pb.ToolPolicy(
            tool_choice=policy.tool_choice,
            parallel_tool_calls=policy.parallel_tool_calls,
            max_steps=policy.max_steps,
            max_parallel_calls=policy.max_parallel_calls,
            max_result_bytes=policy.max_result_bytes,
        )
    )
    if policy.call_timeout is not None:
        message.tool_policy.call_timeout.FromTimedelta(policy.call_timeout)


def _tool_of(tool: pb.AgentTool, path: str) -> AgentTool:
    match tool.WhichOneof("kind"):
        case "mcp":
            return AgentTool(mcp=_server_of(tool.mcp))
        case "http":
            return AgentTool(http=_server_of(tool.http))
        case "a2a":
            return AgentTool(a2a=_server_of(tool.a2a))
        case "agent":
            call = tool.agent
            return AgentTool(agent=AgentCall(call.agent_id, call.name, call.description, call.approval))
        case "client":
            return AgentTool(client=_client_of(tool.client, f"{path}.client"))
        case _:
            return AgentTool()


def _server_of(tools: pb.ServerTools) -> ServerTools:
    approval = ApprovalPolicy(tools.approval.always, _names(tools.approval.tools))
    return ServerTools(
        tool_server=tools.tool_server,
        operator_tool_server=tools.operator_tool_server,
        allow=_names(tools.allow),
        deny=_names(tools.deny),
        approval=approval if approval != ApprovalPolicy() else None,
        required=tools.required,
        idempotent=_names(tools.idempotent),
        forward_user_token=tools.forward_user_token,
    )


def _client_of(tool: pb.ClientTool, path: str) -> ClientTool:
    parameters = None
    if tool.HasField("parameters"):
        parameters = object_of(tool.parameters, f"{path}.parameters", maximum=MAX_SCHEMA_BYTES)
    return ClientTool(tool.name, tool.description, parameters, tool.strict)


def _names(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names[: MAX_TOOL_NAMES + 1])


def _to_proto(tool: AgentTool) -> pb.AgentTool:
    if tool.mcp is not None:
        return pb.AgentTool(mcp=_server_to_proto(tool.mcp))
    if tool.http is not None:
        return pb.AgentTool(http=_server_to_proto(tool.http))
    if tool.a2a is not None:
        return pb.AgentTool(a2a=_server_to_proto(tool.a2a))
    if tool.agent is not None:
        call = tool.agent
        return pb.AgentTool(
            agent=pb.AgentCall(
                agent_id=call.agent_id, name=call.name, description=call.description, approval=call.approval
            )
        )
    message = pb.AgentTool()
    if tool.client is not None:
        one = tool.client
        message.client.CopyFrom(pb.ClientTool(name=one.name, description=one.description, strict=one.strict))
        if one.parameters is not None:
            message.client.parameters.CopyFrom(struct(one.parameters))
    return message


def _server_to_proto(tools: ServerTools) -> pb.ServerTools:
    message = pb.ServerTools(
        tool_server=tools.tool_server,
        operator_tool_server=tools.operator_tool_server,
        allow=tools.allow,
        deny=tools.deny,
        required=tools.required,
        idempotent=tools.idempotent,
        forward_user_token=tools.forward_user_token,
    )
    if tools.approval is not None:
        message.approval.CopyFrom(pb.ApprovalPolicy(always=tools.approval.always, tools=tools.approval.tools))
    return message
