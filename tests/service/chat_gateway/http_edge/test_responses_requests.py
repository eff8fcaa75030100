"""What POST /v1/responses takes, and what it refuses."""

import json
from typing import Any

import pytest

from chat_gateway.model.provider_errors import UnsupportedField
from chat_gateway.model.turn import (
    FinishReason,
    Message,
    ProviderData,
    ToolCall,
)
from contract.enums import HistoryPolicy, Role
from tests.openai_types import response_of
from tests.service.chat_gateway.http_edge.edge import Edge, failing, whole
from tests.service.chat_gateway.http_edge.responses import WEATHER, ask


async def test_input_items_are_messages(edge: Edge) -> None:
    await ask(
        edge,
        input=[
            {"role": "developer", "content": "Be kind."},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "low"},
                    {"type": "input_file", "file_data": "aGk=", "filename": "a.txt"},
                ],
            },
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "So"}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "[]"},
            {"type": "function_call_output", "call_id": "c1", "output": "wet"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "dry"}]},
            {"role": "user", "content": "and?"},
        ],
        conversation={"id": "s:9"},
    )
    asked = edge.turns.requests[-1]
    assert [message.role.value for message in asked.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
    ]
    assert asked.messages[2] == Message(
        Role.ASSISTANT,
        "So",
        reasoning="hm",
        tool_calls=(ToolCall("c1", "weather", "{}"), ToolCall("c2", "weather", "[]")),
    )
    assert [message.content for message in asked.messages[3:5]] == ["wet", "dry"]
    assert (asked.session_id, asked.history) == ("s:9", HistoryPolicy.APPEND)


async def test_whatever_is_answered_is_taken_back(edge: Edge) -> None:
    """A caller without a conversation sends the output again, with what the provider needs back."""
    data = ProviderData("anthropic", "claude", b'{"signature":"x"}')
    call = ToolCall("c1", "weather", "{}", ProviderData("gemini", "g", b'{"thought":1}'))
    said = Message(Role.ASSISTANT, "So", reasoning="hm", provider_data=data, tool_calls=(call,))
    edge.turns.script = whole("So", message=said, said=(said,), session_id="", finish_reason=FinishReason.TOOL_CALLS)
    asked: dict[str, Any] = {"store": False, "include": ["reasoning.encrypted_content"], "tools": [WEATHER]}
    first = await ask(edge, **asked)
    assert response_of(first.json()).conversation is None
    result = {"type": "function_call_output", "call_id": "c1", "output": "wet"}
    again = await ask(edge, **asked, input=[{"role": "user", "content": "Hi"}, *first.json()["output"], result])
    assert again.status_code == 200
    assert edge.turns.requests[-1].messages == (
        Message(Role.USER, "Hi"),
        said,
        Message(Role.TOOL, "wet", tool_call_id="c1"),
    )


async def test_options_reach_the_turn(edge: Edge) -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    answered = await ask(
        edge,
        text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        include=["message.output_text.logprobs"],
        top_logprobs=3,
        max_output_tokens=50,
        parallel_tool_calls=False,
        tools=[WEATHER, WEATHER | {"name": "other"}],
        tool_choice={"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]},
        truncation="auto",
        user="ann",
        safety_identifier="s",
        service_tier="flex",
        prompt_cache_key="k",
        conversation="c",
    )
    response = response_of(answered.json())
    assert (response.truncation, response.top_logprobs, response.parallel_tool_calls) == ("auto", 3, False)
    asked = edge.turns.requests[-1]
    assert asked.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": schema, "strict": True},
    }
    assert {name: json.loads(value) for name, value in asked.extra.items()} == {
        "verbosity": "low",
        "reasoning_effort": "low",
        "logprobs": True,
        "top_logprobs": 3,
        "parallel_tool_calls": False,
        "safety_identifier": "s",
        "service_tier": "flex",
        "prompt_cache_key": "k",
    }
    assert ([tool.name for tool in asked.tools], asked.tool_choice) == (["weather"], "required")
    assert asked.allowed_tools == {"weather"}
    assert (asked.sampling.max_output_tokens, asked.user_id, asked.session_id) == (50, "ann", "c")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"context_management": []}, "context_management"),
        ({"frobnicate": 1}, "frobnicate"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [WEATHER | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice.tools"),
        ({"include": ["everything"]}, "include[0]"),
        ({"reasoning": {"summary": "concise"}}, "reasoning.summary"),
        ({"reasoning": {"context": "auto"}}, "reasoning.context"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"truncation": "maybe"}, "truncation"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"input": [{"type": "computer_call", "id": "x"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_video", "video_url": "x"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "f"}]}]},
            "input[0].content[0].file_url",
        ),
        ({"input": [{"role": "user", "content": "x", "name": "n"}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": 3}]}, "input[0].output"),
        ({"input": [{"type": "item_reference", "id": "msg_1.t.s"}], "conversation": "other"}, "input[0].id"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": []}, "input"),
        ({"conversation": "a", "previous_response_id": "resp_t.s"}, "previous_response_id"),
        ({"conversation": {"name": "x"}}, "conversation.name"),
        ({"previous_response_id": "gibberish"}, "previous_response_id"),
        ({"conversation": "a", "store": False}, "store"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"temperature": "hot"}, "temperature"),
        ({"model": "support@x"}, "model"),
    ],
)
async def test_what_can_not_be_honoured_is_refused_by_name(edge: Edge, fields: dict[str, Any], param: str) -> None:
    answered = await ask(edge, **fields)
    assert answered.status_code == 400, answered.text
    error = answered.json()["error"]
    assert error["param"] == param, answered.text
    said = error["violations"][0]["description"]
    not_taken = "is not supported" in said or said == "is not a field" or said.startswith("is not a field ")
    assert error["code"] == ("unsupported_field" if not_taken else "invalid_field"), answered.text
    assert not edge.turns.requests


async def test_fields_that_are_null_say_nothing(edge: Edge) -> None:
    """Clients that dump an item write every field that its type has, in their release."""
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}", "namespace": None}
    result = {"type": "function_call_output", "call_id": "c1", "output": "wet", "created_by": None}
    part = {"type": "input_text", "text": "Hi", "prompt_cache_breakpoint": None}
    said = [{"role": "user", "content": [part], "created_by": None}, call, result]
    assert (await ask(edge, input=said, tools=[WEATHER | {"defer_loading": None}])).status_code == 200
    assert (await ask(edge, input=[call | {"namespace": "x"}, result])).json()["error"]["param"] == "input[0].namespace"
    refused = await ask(edge, input=[call | {"name": None}, result])
    assert refused.json()["error"]["param"] == "input[0].name"


@pytest.mark.parametrize(
    "metadata", [{str(number): "x" for number in range(17)}, {"k" * 65: "v"}, {"k": "v" * 513}, {"": "v"}]
)
async def test_metadata_have_openais_bounds(edge: Edge, metadata: dict[str, str]) -> None:
    for path in ("/v1/responses", "/v1/conversations", "/v1/conversations/conv_1"):
        asked = {"model": "hello", "input": "Hi"} if path == "/v1/responses" else {}
        answered = await edge.client.post(path, json=asked | {"metadata": metadata})
        assert (answered.status_code, answered.json()["error"]["param"]) == (400, "metadata")
    fits = {f"{number:064}": "v" * 512 for number in range(16)}
    assert (await ask(edge, metadata=fits)).status_code == 200


async def test_a_previous_response_that_none_is_stored_as_is_the_one_violation(edge: Edge) -> None:
    error = (await ask(edge, previous_response_id="resp_123")).json()["error"]
    assert [one["field"] for one in error["violations"]] == ["previous_response_id"]


async def test_every_violation_at_once(edge: Edge) -> None:
    answered = await ask(
        edge,
        prompt={"id": "x"},
        temperature="hot",
        tools=[{"type": "mcp"}],
        input=[
            {"type": "function_call_output", "call_id": "", "output": "x"},
            {"role": "robot", "content": "x"},
            {"type": "oracle"},
        ],
        metadata={"a": "b" * 5000},
    )
    fields = {one["field"] for one in answered.json()["error"]["violations"]}
    assert {"prompt", "temperature", "tools[0].type", "input[0].call_id", "input[1].role", "input[2].type"} <= fields
    assert any(field.startswith("metadata") for field in fields)


async def test_what_a_provider_refuses_has_its_name_here(edge: Edge) -> None:
    edge.turns.script = failing(UnsupportedField("local", ["reasoning_effort"]))
    answered = await ask(edge, reasoning={"effort": "low"})
    error = answered.json()["error"]
    assert (answered.status_code, error["code"], error["param"]) == (400, "unsupported_field", "reasoning.effort")
