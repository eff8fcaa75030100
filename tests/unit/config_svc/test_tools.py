"""Tools of an agent config: their rules, their stored form, their messages."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from config_svc.edge.agents_convert import agent_to_proto, difference_to_proto, spec_of
from config_svc.model.agent import AgentConfig, AgentSpec, ModelConfig
from config_svc.model.argument_schema import argument_schema_violations
from config_svc.model.fields import compared, differences
from config_svc.model.spec_json import decode_spec, encode_spec
from config_svc.model.tools import (
    MAX_TOOLS,
    AgentCall,
    AgentTool,
    ApprovalPolicy,
    ClientTool,
    ServerTools,
    ToolPolicy,
)
from parley.config.v1 import agent_config_pb2 as pb
from servicekit.errors import InvalidArgument, Violations

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FULL = AgentSpec(
    model=ModelConfig("p", "m"),
    tools=(
        AgentTool(
            mcp=ServerTools(
                "github",
                allow=("a", "b"),
                deny=("c",),
                approval=ApprovalPolicy(tools=("b",)),
                required=True,
                idempotent=("a",),
                forward_user_token=True,
            )
        ),
        AgentTool(mcp=ServerTools(operator_tool_server="files", approval=ApprovalPolicy(always=True))),
        AgentTool(http=ServerTools("crm")),
        AgentTool(agent=AgentCall("billing", "ask_billing", "Knows of bills.", True)),
        AgentTool(client=ClientTool("pick", "Picks.", {"type": "object", "properties": {"n": {"maximum": 1}}}, True)),
        AgentTool(client=ClientTool("ping")),
    ),
    tool_policy=ToolPolicy("auto", False, 4, 2, timedelta(seconds=1.5), 2048),
)
STORED = {
    "model": {"provider": "p", "name": "m"},
    "tools": [
        {
            "mcp": {
                "tool_server": "github",
                "allow": ["a", "b"],
                "deny": ["c"],
                "approval": {"tools": ["b"]},
                "required": True,
                "idempotent": ["a"],
                "forward_user_token": True,
            }
        },
        {"mcp": {"operator_tool_server": "files", "approval": {"always": True}}},
        {"http": {"tool_server": "crm"}},
        {
            "agent": {
                "agent_id": "billing",
                "name": "ask_billing",
                "description": "Knows of bills.",
                "approval": True,
            }
        },
        {
            "client": {
                "name": "pick",
                "description": "Picks.",
                "parameters": {"type": "object", "properties": {"n": {"maximum": 1}}},
                "strict": True,
            }
        },
        {"client": {"name": "ping"}},
    ],
    "tool_policy": {
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "max_steps": 4,
        "max_parallel_calls": 2,
        "call_timeout": 1500000,
        "max_result_bytes": 2048,
    },
}


def test_the_stored_form() -> None:
    assert encode_spec(FULL) == STORED
    assert decode_spec(STORED) == FULL
    later = {"tools": [{"mcp": {"tool_server": "a", "color": 1}, "later": {}}], "tool_policy": {"color": 1}}
    assert decode_spec(later) == AgentSpec(tools=(AgentTool(mcp=ServerTools("a")),))


def test_the_messages() -> None:
    message = agent_to_proto(AgentConfig("default", "a", "", FULL, 1, NOW, NOW))
    assert spec_of(message) == FULL
    assert not agent_to_proto(AgentConfig("default", "a", "", AgentSpec(), 1, NOW, NOW)).HasField("tool_policy")


def test_every_field_of_the_contract_is_known() -> None:
    for kind in (AgentTool, ServerTools, AgentCall, ClientTool, ApprovalPolicy, ToolPolicy):
        names = {field.name for field in getattr(pb, kind.__name__).DESCRIPTOR.fields}
        assert {member.name for member in fields(kind)} == names


def test_differences() -> None:
    other = spec_of(agent_to_proto(AgentConfig("default", "a", "", FULL, 1, NOW, NOW)))
    assert differences(FULL, other) == ()
    found = {one.path: difference_to_proto(one) for one in compared(AgentSpec(), FULL)}
    assert [kind for one in found["tools"].to_value.list_value.values for kind in one.struct_value.fields] == [
        "mcp",
        "mcp",
        "http",
        "agent",
        "client",
        "client",
    ]
    assert found["tool_policy.call_timeout"].to_value.string_value == "1.500s"
    true = AgentSpec(tools=(AgentTool(client=ClientTool("a", parameters={"default": True})),))
    one = AgentSpec(tools=(AgentTool(client=ClientTool("a", parameters={"default": 1})),))
    assert differences(true, one) == ("tools",)


def server(**fields: Any) -> AgentTool:
    return AgentTool(mcp=ServerTools(**{"tool_server": "a", **fields}))


@pytest.mark.parametrize(
    ("tools", "policy", "broken"),
    [
        ([AgentTool()], {}, ["tools[0]"]),
        ([AgentTool(mcp=ServerTools("a"), client=ClientTool("b"))], {}, ["tools[0]"]),
        ([server(tool_server="")], {}, ["tools[0].mcp.tool_server"]),
        ([server(operator_tool_server="b")], {}, ["tools[0].mcp.tool_server"]),
        ([server(tool_server="Not an id")], {}, ["tools[0].mcp.tool_server"]),
        ([server(tool_server="", operator_tool_server="b" * 64)], {}, ["tools[0].mcp.operator_tool_server"]),
        ([server(allow=("",), deny=("a" * 129,))], {}, ["tools[0].mcp.allow[0]", "tools[0].mcp.deny[0]"]),
        ([server(idempotent=("a",) * 257)], {}, ["tools[0].mcp.idempotent"]),
        ([server(approval=ApprovalPolicy(tools=("a",) * 257))], {}, ["tools[0].mcp.approval.tools"]),
        ([AgentTool(http=ServerTools())], {}, ["tools[0].http.tool_server"]),
        ([AgentTool(agent=AgentCall())], {}, ["tools[0].agent.agent_id", "tools[0].agent.description"]),
        (
            [AgentTool(agent=AgentCall("a", "b c", "d" * 4097))],
            {},
            ["tools[0].agent.name", "tools[0].agent.description"],
        ),
        ([AgentTool(client=ClientTool())], {}, ["tools[0].client.name"]),
        (
            [AgentTool(client=ClientTool("a" * 65, "d" * 4097))],
            {},
            ["tools[0].client.name", "tools[0].client.description"],
        ),
        (
            [AgentTool(client=ClientTool("a", parameters={"description": "x" * 65 * 1024}))],
            {},
            ["tools[0].client.parameters"],
        ),
        ([AgentTool(client=ClientTool("a")), AgentTool(agent=AgentCall("a", "", "d"))], {}, ["tools[1]"]),
        ([server()] * (MAX_TOOLS + 1), {}, ["tools"]),
        (
            [AgentTool(client=ClientTool(f"a{n}", parameters={"description": "x" * 60 * 1024})) for n in range(5)],
            {},
            ["tools"],
        ),
        ([], {"tool_choice": "sum"}, ["tool_policy.tool_choice"]),
        ([AgentTool(client=ClientTool("sum"))], {"tool_choice": "sum"}, []),
        ([server()], {"tool_choice": "sum"}, []),
        ([server()], {"tool_choice": "x" * 129}, ["tool_policy.tool_choice"]),
        ([], {"max_steps": 0, "max_parallel_calls": 65}, ["tool_policy.max_steps", "tool_policy.max_parallel_calls"]),
        ([], {"max_steps": 129, "max_result_bytes": 1023}, ["tool_policy.max_steps", "tool_policy.max_result_bytes"]),
        ([], {"call_timeout": timedelta(seconds=0.9)}, ["tool_policy.call_timeout"]),
        ([], {"call_timeout": timedelta(minutes=11)}, ["tool_policy.call_timeout"]),
        ([], {"max_result_bytes": 1024 * 1024 + 1}, ["tool_policy.max_result_bytes"]),
    ],
)
def test_rules(tools: list[AgentTool], policy: dict[str, Any], broken: list[str]) -> None:
    found = Violations()
    spec = AgentSpec(model=ModelConfig("p", "m"), tools=tuple(tools), tool_policy=ToolPolicy(**policy))
    spec.check(found, "agent_config")
    assert found.fields() == {f"agent_config.{one}" for one in broken}


def test_a_bound_is_a_plain_number() -> None:
    found = Violations()
    ToolPolicy(max_result_bytes=1).check(found, "p")
    with pytest.raises(InvalidArgument, match="must be at least 1024 and at most 1048576"):
        found.check()


def test_what_comes_beyond_the_bounds_is_not_converted() -> None:
    many = pb.AgentConfig(tools=[pb.AgentTool(mcp=pb.ServerTools(allow=["a"] * 1000))] * 1000)
    spec = spec_of(many)
    assert len(spec.tools) == MAX_TOOLS + 1
    assert spec.tools[0].mcp is not None
    assert len(spec.tools[0].mcp.allow) == 257
    policy = pb.AgentConfig(tool_policy=pb.ToolPolicy(call_timeout=Duration(seconds=2**62)))
    assert spec_of(policy).tool_policy.call_timeout == timedelta.max


@pytest.mark.parametrize(
    ("schema", "broken"),
    [
        ({}, []),
        ({"type": "object", "properties": {"a": {"type": ["string", "null"], "enum": ["b", None]}, "c": True}}, []),
        ({"type": "object", "$defs": {"a": {"maxLength": 1.0}}, "x-anything": 1, "required": ["a"]}, []),
        ({"type": "string"}, ["p.type"]),
        ({"type": ["object"]}, ["p.type"]),
        ({"properties": {"a": {"type": "text"}}}, ["p.properties.a.type"]),
        (
            {"properties": [], "required": "a", "additionalProperties": 1},
            ["p.properties", "p.required", "p.additionalProperties"],
        ),
        ({"anyOf": []}, ["p.anyOf"]),
        ({"anyOf": [{"not": "x"}]}, ["p.anyOf[0].not"]),
        (
            {"properties": {"a": {"minLength": -1, "maximum": True, "pattern": 1}}},
            ["p.properties.a.minLength", "p.properties.a.maximum", "p.properties.a.pattern"],
        ),
        ({"items": {"uniqueItems": 1, "maxItems": 1.5}}, ["p.items.uniqueItems", "p.items.maxItems"]),
    ],
)
def test_schemas_of_arguments(schema: dict[str, Any], broken: list[str]) -> None:
    assert [one.field for one in argument_schema_violations(schema, "p")] == broken


def test_violations_of_a_schema_are_bounded() -> None:
    schema: dict[str, Any] = {"properties": {f"p{n}": 1 for n in range(10_000)}}
    assert len(argument_schema_violations(schema, "p")) == 100
