"""Fields within messages, parts, calls, tools and options that no shape has: passed on, or refused by their places."""

import json
from dataclasses import replace
from typing import Any

import pytest

from access.caller import ANONYMOUS
from chat_gateway.digest import request_digest
from chat_gateway.http_edge.openai.chat.handler import read_request
from chat_gateway.http_edge.openai.chat.nested_fields import MAX_NESTED_BYTES
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model.provider_errors import UnsupportedField
from chat_gateway.model.rules import DEFAULT_BOUNDS
from chat_gateway.providers.anthropic.request import encode_call as anthropic_call
from chat_gateway.providers.gemini.request import encode_call as gemini_call
from servicekit.errors import ServiceError
from tests.unit.chat_gateway.http_edge.openai.chat.asked import (
    CALL,
    RESULT,
    TEXT,
    USER,
    answered,
    asked,
    at,
    called,
    sent,
)

CACHE = {"cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

NESTED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "of a message": ([{**USER, **CACHE}], {}, "messages[0].cache_control"),
    "of a system message": ([{"role": "system", "content": "x", "weight": 1}, USER], {}, "messages[0].weight"),
    "of an answer to go on from": ([USER, answered(prefix=True)], {}, "messages[1].prefix"),
    "of a text part": ([{"role": "user", "content": [{**TEXT, **CACHE}, TEXT]}], {},
                       "messages[0].content[0].cache_control"),
    "of instructions in parts": ([{"role": "developer", "content": [TEXT, {**TEXT, **CACHE}]}, USER], {},
                                 "messages[0].content[1].cache_control"),
    "of a result in parts": ([USER, answered(tool_calls=[CALL]), {**RESULT, "content": [{**TEXT, **CACHE}]}], {},
                             "messages[2].content[0].cache_control"),
    "of an image": ([{"role": "user", "content": [{**IMAGE, "image_url": {"url": "https://x", "format": "webp"}}]}],
                    {}, "messages[0].content[0].image_url.format"),
    "beside an image": ([{"role": "user", "content": [{**IMAGE, "max_pixels": 9}]}], {},
                        "messages[0].content[0].max_pixels"),
    "of a call": ([USER, answered(tool_calls=[{**CALL, "cost": 1}]), RESULT], {}, "messages[1].tool_calls[0].cost"),
    "of a question": ([{**USER, "thinking_blocks": [1]}], {}, "messages[0].thinking_blocks"),
    "of a tool": ([USER], {"tools": [{**TOOL, **CACHE}]}, "tools[0].cache_control"),
    "of a function": ([USER], {"tools": [{"type": "function", "function": {**TOOL["function"], "returns": {}}}]},
                      "tools[0].function.returns"),
}  # fmt: skip


@pytest.mark.parametrize("row", NESTED)
def test_the_providers_go_on_or_are_refused_by_their_places(row: str) -> None:
    messages, body, path = NESTED[row]
    request = asked(messages, **body)
    assert at(sent(request), path) == at({"messages": messages, **body}, path)
    strict = [
        lambda: sent(request, "openai"),
        lambda: sent(request, "mistral"),
        lambda: gemini_call(called(request), "p", {}),
    ]
    if not path.endswith("cache_control"):
        strict.append(lambda: anthropic_call(called(request), "p", {}, stream=False))
    for send in strict:
        with pytest.raises(UnsupportedField) as refused:
            send()
        assert [one.field for one in refused.value.violations] == [path]


@pytest.mark.parametrize("row", NESTED)
def test_they_are_part_of_what_a_request_id_stands_for(row: str) -> None:
    messages, body, path = NESTED[row]
    plain = json.loads(json.dumps({"messages": messages, **body}))
    parent, _, name = path.rpartition(".")
    del at(plain, parent)[name]
    with_it, without = asked(messages, **body), asked(**plain)
    assert request_digest(with_it) != request_digest(without)
    assert request_digest(with_it) == request_digest(asked(messages, **body))


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}, "x": 1}}, "tool_choice.x"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f", "x": 1}}},
         "tool_choice.function.x"),
        ({"session_id": "s", "approvals": [{"tool_call_id": "c", "approve": True, "always": True}]},
         "approvals[0].always"),
        ({"messages": [USER, answered(content=[{"type": "refusal", "refusal": "no", "x": 1}]), USER]},
         "messages[1].content[0].x"),
    ],
)  # fmt: skip
def test_what_nobody_could_take_is_refused_beside_whatever_else_is_wrong(body: dict[str, Any], path: str) -> None:
    with pytest.raises(ServiceError) as refused:
        asked(**{"messages": [USER]} | body)
    assert [one.field for one in refused.value.violations] == [path]
    if not path.startswith("messages"):
        assert refused.value.reason == "UNSUPPORTED_FIELD"
    for wrong in ({"temperature": 9}, {"temperature": "hot"}):
        with pytest.raises(ServiceError) as refused:
            asked(**{"messages": [USER]} | body | wrong)
        assert {one.field for one in refused.value.violations} == {path, "temperature"}


@pytest.mark.parametrize("preset", ["compatible", "openai", "mistral"])
def test_what_answers_have_is_taken_back_as_history(preset: str) -> None:
    """As SDKs dump an answer: it asks for nothing."""
    call = {**CALL, "index": 0, "function": {**CALL["function"], "parsed_arguments": {"a": 1}}}
    answer = answered(
        tool_calls=[call], annotations=[], parsed={"a": 1}, provider_specific_fields={"refusal": None}, audio=None,
        function_call=None, refusal=None, reasoning="hm", cache_control=None,
    )  # fmt: skip
    request = asked([USER, answer, RESULT])
    plain = asked([USER, answered(tool_calls=[CALL], reasoning_content="hm"), RESULT])
    assert request == plain
    assert sent(request, preset) == sent(plain, preset)
    with pytest.raises(UnsupportedField, match=r"messages\[0\].annotations"):
        sent(asked([{**USER, "annotations": [1]}]), "openai")


def test_no_field_of_a_caller_goes_before_what_is_said() -> None:
    request = asked([USER], tools=[{**TOOL, "function": {**TOOL["function"], "description": None, "x": 1}}])
    [tool] = request.tools
    assert tool.extra is not None
    forged = replace(tool, extra=replace(tool.extra, json=b'{"type": "other", "function": {"name": "g", "x": 1}}'))
    body = sent(replace(request, tools=(forged,)))
    assert body["tools"][0] == {"type": "function", "function": {**TOOL["function"], "x": 1}}


def test_a_template_of_one_system_message_loses_none() -> None:
    system = [{"role": "system", "content": "a", **CACHE}, {"role": "system", "content": [TEXT, {**TEXT, **CACHE}]}]
    [head, _] = sent(asked([system[0], USER, system[1]]), "vllm")["messages"]
    assert head["content"] == [
        {"type": "text", "text": "a", **CACHE},
        {"type": "text", "text": "\n\nx"},
        {**TEXT, **CACHE},
    ]


def test_where_a_caller_says_what_is_cached_nobody_else_does() -> None:
    def marks(messages: list[Any], **body: Any) -> Any:
        return json.loads(anthropic_call(called(asked(messages, **body)), "p", {}, stream=False))

    system = {"role": "system", "content": "You help."}
    own = marks([system, USER], tools=[TOOL])
    assert [own["system"][0]["cache_control"], own["tools"][0]["cache_control"]] == [{"type": "ephemeral"}] * 2
    theirs = marks([system, {"role": "user", "content": [TEXT, {**TEXT, **CACHE}]}], tools=[TOOL])
    assert theirs["messages"][0]["content"] == [TEXT, {**TEXT, **CACHE}]
    assert json.dumps(theirs).count("cache_control") == 1
    whole = marks([{**system, **CACHE}, USER, answered(tool_calls=[{**CALL, **CACHE}]), {**RESULT, **CACHE}])
    assert json.dumps(whole).count("cache_control") == 3
    assert whole["messages"][1]["content"][1]["cache_control"] == {"type": "ephemeral"}


def test_they_are_bounded() -> None:
    with pytest.raises(ServiceError, match=r"messages\[0\].x: must be") as refused:
        asked([{**USER, "x": "y" * MAX_NESTED_BYTES}])
    assert refused.value.reason == "MALFORMED_BODY"
    deep = b'{"model": "a", "messages": [{"role": "user", "content": "x", "y": ' + b"[" * 5000 + b"]" * 5000 + b"}]}"
    with pytest.raises(ServiceError, match="JSON"):
        read_request(deep, TurnHeaders(), ANONYMOUS, DEFAULT_BOUNDS)


@pytest.mark.parametrize("other", ["image_url", "input_audio", "file", "refusal"])
def test_a_part_is_of_its_type_only(other: str) -> None:
    said = {
        "image_url": {"url": "https://x"},
        "input_audio": {"data": "aaaa", "format": "wav"},
        "file": {},
        "refusal": "x",
    }
    with pytest.raises(ServiceError) as refused:
        asked([{"role": "user", "content": [{**TEXT, other: said[other]}]}])
    assert [one.field for one in refused.value.violations] == [f"messages[0].content[0].{other}"]
