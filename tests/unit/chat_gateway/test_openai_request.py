"""What each dialect of chat completions is sent."""

import json
from dataclasses import replace
from typing import Any

import pytest

from chat_gateway.model.provider_errors import UnsupportedField
from chat_gateway.model.turn import Message, ProviderData, Sampling, ToolCall
from chat_gateway.providers.openai.dialect import PRESETS, Dialects, preset_for
from chat_gateway.providers.openai.request import encode_call
from chat_gateway.providers.provider import ModelCall
from contract.enums import Role

CALLED = Message(
    Role.ASSISTANT,
    "",
    tool_calls=(ToolCall("call_a", "f", "", ProviderData("openai", "p", b'{"extra_content":{"g":"s"}}')),),
    reasoning="hm",
    provider_data=ProviderData("openai", "p", b'{"reasoning_details":[1],"content":"not mine"}'),
)
MESSAGES = (
    Message(Role.SYSTEM, "You help."),
    Message(Role.USER, "hi", name="Ada"),
    CALLED,
    Message(Role.TOOL, "4", tool_call_id="call_a"),
    Message(Role.SYSTEM, "Be brief."),
    Message(Role.ASSISTANT, "four", reasoning="easy"),
)
CALL = ModelCall("m", MESSAGES, Sampling(max_output_tokens=5, seed=1))


def sent(preset: str, call: ModelCall = CALL, *, stream: bool = False, provider: str = "p", **switches: Any) -> Any:
    dialect = replace(PRESETS[preset], **switches)
    return json.loads(encode_call(call, dialect, provider, stream=stream))


def test_openai() -> None:
    body = sent("openai", stream=True)
    assert (body["max_completion_tokens"], body["seed"], body["stream_options"]) == (5, 1, {"include_usage": True})
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "system", "assistant"]
    assert body["messages"][2] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_a",
                "type": "function",
                "function": {"name": "f", "arguments": "{}"},
                "extra_content": {"g": "s"},
            }
        ],
        "reasoning_details": [1],
    }


def test_what_one_provider_wrote_is_not_shown_to_another() -> None:
    message = sent("openai", provider="other")["messages"][2]
    assert "reasoning_details" not in message
    assert "extra_content" not in message["tool_calls"][0]


@pytest.mark.parametrize("preset", ["openai", "azure"])
def test_names_that_openai_refuses_are_written_in_its_way(preset: str) -> None:
    call = replace(CALL, messages=(Message(Role.USER, "hi", name="Ada L/<x>"),))
    assert sent(preset, call)["messages"][0]["name"] == "Ada_L__x_"
    assert sent("compatible", call)["messages"][0]["name"] == "Ada L/<x>"


def test_mistral() -> None:
    body = sent("mistral", stream=True)
    assert (body["max_tokens"], body["random_seed"], "stream_options" in body) == (5, 1, False)
    assert "name" not in body["messages"][1]
    called, result = body["messages"][2]["tool_calls"][0]["id"], body["messages"][3]["tool_call_id"]
    assert called == result
    assert len(called) == 9
    assert called.isalnum()


@pytest.mark.parametrize("preset", ["vllm", "llama.cpp"])
def test_templates_that_take_one_system_message(preset: str) -> None:
    messages = sent(preset)["messages"]
    assert messages[0] == {"role": "system", "content": "You help.\n\nBe brief."}
    assert [message["role"] for message in messages].count("system") == 1


def test_deepseek_wants_its_reasoning_back_with_tool_calls() -> None:
    messages = sent("deepseek")["messages"]
    assert (messages[2]["reasoning_content"], "reasoning_content" in messages[5]) == ("hm", False)
    assert sent("deepseek", send_reasoning="always")["messages"][5]["reasoning_content"] == "easy"
    assert sent("openrouter")["messages"][2]["reasoning"] == "hm"


def test_switches_by_model_go_before_the_providers() -> None:
    dialects = Dialects("openai", {"names": False}, {"o3*": {"system_role": "developer"}, "*-old": {"names": True}})
    assert (dialects.of("gpt").system_role, dialects.of("o3-mini").system_role) == ("system", "developer")
    assert (dialects.of("o3-mini").names, dialects.of("o3-old").names) == (False, True)
    body = json.loads(encode_call(CALL, dialects.of("o3-mini"), "p", stream=False))
    assert body["messages"][0]["role"] == "developer"


def test_other_fields_go_on_or_are_refused_by_name() -> None:
    call = replace(CALL, extra={"top_k": b"4", "verbosity": b'"low"'})
    body = sent("compatible", call, extra_body={"top_k": 1, "seed": 9, "cache": True})
    assert (body["top_k"], body["verbosity"], body["seed"], body["cache"]) == (4, "low", 1, True)
    with pytest.raises(UnsupportedField, match="top_k") as caught:
        sent("openai", call)
    assert [violation.field for violation in caught.value.violations] == ["top_k"]
    assert sent("openai", replace(CALL, extra={"verbosity": b'"low"'}))["verbosity"] == "low"


@pytest.mark.parametrize(
    ("host", "preset"),
    [
        ("api.openai.com", "openai"),
        ("x.openai.azure.com", "azure"),
        ("127.0.0.1", "compatible"),
        ("openrouter.ai", "openrouter"),
    ],
)
def test_a_provider_that_names_no_dialect_has_its_hosts(host: str, preset: str) -> None:
    assert preset_for(host) == preset
