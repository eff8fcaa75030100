"""What turns know of an agent config's tools."""

from datetime import timedelta

from chat_gateway.clients.config_client import config_from_proto
from chat_gateway.model.tools import DEFAULT_TOOL_POLICY, AgentCall, ClientTool, ServerTools, ToolPolicy
from tests.service.chat_gateway.http_edge.samples import agent_config


def test_tools_and_policy() -> None:
    config = config_from_proto(agent_config())
    assert config.tools == (
        ServerTools(
            "github",
            allow=frozenset({"a", "b"}),
            deny=frozenset({"c"}),
            approval=frozenset({"b"}),
            required=True,
            idempotent=frozenset({"a"}),
            forward_user_token=True,
        ),
        ServerTools(operator_tool_server="files", approval_always=True),
        ServerTools("crm"),
        AgentCall("billing", "bills", "Knows of bills.", True),
        ClientTool("pick", "Picks.", {"type": "object"}, True),
        ClientTool("ping", parameters={}),
    )
    assert config.tool_policy == ToolPolicy("pick", False, 4, 2, timedelta(seconds=1.5).total_seconds(), 2048)


def test_defaults_and_what_a_later_release_writes() -> None:
    plain = agent_config()
    plain.ClearField("tool_policy")
    del plain.tools[:]
    plain.tools.add()
    plain.tools.add(agent={"agent_id": "billing", "description": "d"})
    config = config_from_proto(plain)
    assert config.tools == (AgentCall("billing", "billing", "d"),)
    assert config.tool_policy is DEFAULT_TOOL_POLICY
    plain.tool_policy.tool_choice = "none"
    assert config_from_proto(plain).tool_policy == ToolPolicy("none")
