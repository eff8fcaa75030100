"""What the scripted peers of the admin API's tests answer with."""

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from parley.config.v1.agent_config_pb2 import AgentConfig
from parley.session.v1.session_service_pb2 import Session

TIME = Timestamp(seconds=1777863721)
WRITTEN = {
    "id": "support",
    "name": "Support",
    "template_id": "assistant",
    "instructions": "You answer for {{company}}.",
    "parameters": {"company": "Acme", "depth": {"n": 3, "x": [1.5, None, True]}},
    "model": {
        "provider": "local",
        "name": "smollm2",
        "temperature": 0.2,
        "stop": ["END"],
        "fallbacks": [{"provider": "spare", "name": "m", "also_on": ["content_filter", "context_length"]}],
    },
    "memory": {"max_messages": 0},
    "session": {"idle_ttl": "1800s", "max_lifetime": "86400s"},
    "limits": {"max_concurrent_turns": 2, "turn_timeout": "1.500s", "requests_per_minute": 90},
    "labels": {"team": "cx"},
    "metadata_keys": ["customer"],
    "tools": [
        {
            "mcp": {
                "tool_server": "github",
                "allow": ["a", "b"],
                "deny": ["c"],
                "approval": ["b"],
                "required": True,
                "idempotent": ["a"],
                "forward_user_token": True,
            }
        },
        {"mcp": {"operator_tool_server": "files", "approval": "always"}},
        {"http": {"tool_server": "crm"}},
        {"agent": {"agent_id": "billing", "name": "bills", "description": "Knows of bills.", "approval": "always"}},
        {"client": {"name": "pick", "description": "Picks.", "parameters": {"type": "object"}, "strict": True}},
        {"client": {"name": "ping", "parameters": {}}},
    ],
    "tool_policy": {
        "tool_choice": "pick",
        "parallel_tool_calls": False,
        "max_steps": 4,
        "max_parallel_calls": 2,
        "call_timeout": "1.500s",
        "max_result_bytes": 2048,
    },
}


def agent_config(**fields: Any) -> AgentConfig:
    config = AgentConfig(
        project="default",
        id="support",
        uid="u1",
        display_name="Support",
        template_id="assistant",
        template_version="1.0.0",
        instructions="You answer for {{company}}.",
        model={
            "provider": "local",
            "name": "smollm2",
            "temperature": 0.2,
            "stop": ["END"],
            "fallbacks": [{"provider": "spare", "name": "m", "also_on": [1, 2]}],
        },
        memory={"max_messages": 0},
        session={"idle_ttl": {"seconds": 1800}, "max_lifetime": {"seconds": 86400}},
        limits={
            "max_concurrent_turns": 2,
            "turn_timeout": {"seconds": 1, "nanos": 500_000_000},
            "requests_per_minute": 90,
        },
        labels={"team": "cx"},
        metadata_keys=["customer"],
        tools=[
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
            {"agent": {"agent_id": "billing", "name": "bills", "description": "Knows of bills.", "approval": True}},
            {"client": {"name": "pick", "description": "Picks.", "strict": True}},
            {"client": {"name": "ping"}},
        ],
        tool_policy={
            "tool_choice": "pick",
            "parallel_tool_calls": False,
            "max_steps": 4,
            "max_parallel_calls": 2,
            "call_timeout": {"seconds": 1, "nanos": 500_000_000},
            "max_result_bytes": 2048,
        },
        revision=2,
        etag="e2",
        create_time=TIME,
        update_time=TIME,
    )
    config.parameters.update(WRITTEN["parameters"])
    config.tools[4].client.parameters.update({"type": "object"})
    config.tools[5].client.parameters.SetInParent()
    for name, value in fields.items():
        setattr(config, name, value)
    return config


def session(**fields: Any) -> Session:
    values: dict[str, Any] = {
        "project": "default",
        "id": "s:1",
        "agent_id": "support",
        "agent_uid": "u1",
        "user_id": "ann",
        "agent_revision": 2,
        "turn_count": 1,
        "message_count": 2,
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 1, "reasoning_tokens": 2},
        "metadata": {"lang": "en"},
        "create_time": TIME,
        "last_activity_time": TIME,
        "expire_time": TIME,
        "idle_ttl": {"seconds": 1800},
        "max_lifetime": {"seconds": 86400},
    }
    return Session(**values | fields)
