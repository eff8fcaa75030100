"""What kinds `anthropic` and `gemini` send: golden files of whole requests, and the rules of each API one by one.

A golden file is what the adapter sends of the case of its name; `PARLEY_GOLDEN=write` writes them again.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chat_gateway.model.provider_errors import UnsupportedField
from chat_gateway.model.turn import ImagePart, Message, ProviderData, Sampling, TextPart, Tool, ToolCall
from chat_gateway.providers.adapter import Adapter
from chat_gateway.providers.anthropic.adapter import AnthropicAdapter
from chat_gateway.providers.gemini.adapter import GeminiAdapter
from chat_gateway.providers.paired import NO_RESULT
from chat_gateway.providers.provider import ModelCall
from contract.enums import Role
from servicekit.errors import InvalidArgument

GOLDEN = Path(__file__).parent / "golden"
ADAPTERS: dict[str, Adapter] = {"anthropic": AnthropicAdapter("local"), "gemini": GeminiAdapter("local")}
MODELS = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-3-pro"}
PNG = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 1}, "unit": {"const": "C"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = Tool("get_weather", "The weather of a city.", SCHEMA, strict=True)
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


def system(text: str) -> Message:
    return Message(Role.SYSTEM, text)


def user(text: str = "hi", *parts: TextPart | ImagePart, name: str = "") -> Message:
    return Message(Role.USER, "" if parts else text, parts=parts, name=name)


def model(text: str = "", *calls: ToolCall, data: ProviderData | None = None) -> Message:
    return Message(Role.ASSISTANT, text, tool_calls=calls, provider_data=data)


def result(call_id: str, text: str = "sunny") -> Message:
    return Message(Role.TOOL, text, tool_call_id=call_id)


def called(call_id: str = "c1", arguments: str = '{"city":"Paris"}', data: ProviderData | None = None) -> ToolCall:
    return ToolCall(call_id, "get_weather", arguments, data)


def kept(kind: str, said: Any) -> ProviderData:
    return ProviderData(kind, "local", json.dumps(said).encode())


def ask(*messages: Message, sampling: Sampling | None = None, **more: Any) -> ModelCall:
    return ModelCall("", messages, sampling or Sampling(), **more)


def sent(kind: str, call: ModelCall, *, stream: bool = False) -> dict[str, Any]:
    call = replace(call, model=call.model or MODELS[kind])
    body: dict[str, Any] = json.loads(ADAPTERS[kind].request(call, stream=stream).body)
    return body


CASES = {
    "text": ask(system("Be brief."), user()),
    "sampling": ask(user(), sampling=Sampling(0.5, 0.9, 100, ("END",))),
    "pictures": ask(user("", TextPart("What?"), ImagePart(PNG, "low"), ImagePart("https://example.com/a.jpg"))),
    "format": ask(user(), response_format=FORMAT),
    "tools": ask(system("Be brief."), user(), tools=(WEATHER, Tool("now")), tool_choice="required"),
    "tool_round": ask(
        user("Weather?"),
        model("Let me look.", called("c1"), called("c2", '{"city":"Rome"}')),
        result("c2", '{"sky": "clear"}'),
        result("c1"),
        user("And?"),
        tools=(WEATHER,),
    ),
}
ROUNDS = {
    "anthropic": ask(
        user("Weather?"),
        model(
            "Let me look.",
            called("toolu_1"),
            data=kept("anthropic", [{"type": "thinking", "thinking": "hm", "signature": "EqQB=="}, 12, "call"]),
        ),
        result("toolu_1"),
        tools=(WEATHER,),
    ),
    "gemini": ask(
        user("Weather?"),
        model("", called("id1", data=kept("gemini", {"id": "id1", "thoughtSignature": "Sig="})), called("call_2")),
        result("id1"),
        result("call_2"),
        tools=(WEATHER,),
    ),
}


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("name", [*CASES, "signed_tool_round"])
def test_a_request_is_its_golden_file(kind: str, name: str) -> None:
    body = sent(kind, ROUNDS[kind] if name == "signed_tool_round" else CASES[name])
    path = GOLDEN / kind / f"{name}.json"
    if os.environ.get("PARLEY_GOLDEN") == "write":
        path.write_text(json.dumps(body, indent=1) + "\n")
    assert body == json.loads(path.read_text())


def test_where_a_request_goes() -> None:
    call = ModelCall("m/x", [user()], Sampling())
    assert ADAPTERS["anthropic"].request(call, stream=False).path == "/messages"
    assert sent("anthropic", call, stream=True)["stream"] is True
    gemini = ADAPTERS["gemini"]
    assert gemini.request(replace(call, model="g"), stream=False).path == "/models/g:generateContent"
    assert gemini.request(replace(call, model="g?x"), stream=True).path == (
        "/models/g%3Fx:streamGenerateContent?alt=sse"
    )
    assert gemini.request(replace(call, model="tunedModels/x"), stream=False).path == "/tunedModels/x:generateContent"
    with pytest.raises(InvalidArgument):
        gemini.request(replace(call, model="models/../../x"), stream=False)
    assert ADAPTERS["anthropic"].credentials("k") == {"anthropic-version": "2023-06-01", "x-api-key": "k"}
    assert gemini.credentials("k") == {"x-goog-api-key": "k"}


REFUSED = {
    "anthropic": {
        "sampling.seed": ask(user(), sampling=Sampling(seed=1)),
        "sampling.presence_penalty": ask(user(), sampling=Sampling(presence_penalty=1)),
        "sampling.frequency_penalty": ask(user(), sampling=Sampling(frequency_penalty=1)),
        "sampling.temperature": ask(user(), sampling=Sampling(temperature=1.5)),
        "sampling.stop": ask(user(), sampling=Sampling(stop=("\n",))),
        "response_format": ask(user(), response_format={"type": "json_object"}),
    },
    "gemini": {
        "sampling.seed": ask(user(), sampling=Sampling(seed=2**31)),
        "response_format": ask(user(), response_format={"type": "grammar"}),
        "tools[0].parameters": ask(user(), tools=(Tool("f", "", {"type": "object", "not": {}}),)),
    },
}


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, rows in REFUSED.items() for field in rows])
def test_what_a_kind_has_no_word_for_is_refused_by_name(kind: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        sent(kind, REFUSED[kind][field])
    assert [violation.field for violation in caught.value.violations] == [field]
    assert kind in caught.value.message


def test_every_violation_is_named_at_once() -> None:
    with pytest.raises(InvalidArgument) as caught:
        sent("anthropic", ask(user(), sampling=Sampling(temperature=2, seed=1), response_format={"type": "x"}))
    assert len(caught.value.violations) == 3


def blocks(kind: str, body: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    """The messages as (role, parts), each part by its only name or type."""
    if kind == "anthropic":
        return [(one["role"], [part["type"] for part in one["content"]]) for one in body["messages"]]
    return [(one["role"], [next(iter(part)) for part in one["parts"]]) for one in body["contents"]]


RULES = {
    "consecutive messages of one role": (
        [user("a"), user("b"), model("c"), model("d"), user("e")],
        [("user", ["text", "text"]), ("model", ["text", "text"]), ("user", ["text"])],
    ),
    "blank texts": ([user("a"), model(" \n"), user("b")], [("user", ["text", "text"])]),
    "an assistant first": ([model("a"), user("b")], [("user", ["text"]), ("model", ["text"]), ("user", ["text"])]),
    "only a system message": ([system("a")], [("user", ["text"])]),
    "a call without a result": (
        [user(), model("", called()), user("b")],
        [("user", ["text"]), ("model", ["call"]), ("user", ["result", "text"])],
    ),
    "a call without a result at the end": (
        [user(), model("", called())],
        [("user", ["text"]), ("model", ["call"]), ("user", ["result"])],
    ),
    "a result after the user spoke": (
        [user(), model("", called()), user("b"), result("c1")],
        [("user", ["text"]), ("model", ["call"]), ("user", ["result", "text"])],
    ),
    "a result without a call": ([user(), result("c9"), user("b")], [("user", ["text", "text", "text"])]),
    "a system message between": (
        [user(), model("", called()), system("x"), result("c1")],
        [("user", ["text"]), ("model", ["call"]), ("user", ["result"])],
    ),
}
WORDS = {"assistant": "model", "tool_use": "call", "functionCall": "call", "tool_result": "result"}
WORDS["functionResponse"] = "result"


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("rule", RULES)
def test_every_prompt_is_one_that_the_api_takes(kind: str, rule: str) -> None:
    messages, right = RULES[rule]
    seen = blocks(kind, sent(kind, ask(*messages)))
    assert [(WORDS.get(role, role), [WORDS.get(part, part) for part in parts]) for role, parts in seen] == right


def test_a_call_without_a_result_says_so() -> None:
    call = ask(user(), model("", called()))
    said = sent("anthropic", call)["messages"][2]["content"][0]
    assert (said["tool_use_id"], said["content"]) == ("c1", [{"type": "text", "text": NO_RESULT}])
    part = sent("gemini", call)["contents"][2]["parts"][0]["functionResponse"]
    assert part == {"name": "get_weather", "response": {"output": NO_RESULT}}


def test_ids_of_calls_are_made_unique_and_plain_for_anthropic() -> None:
    call = ask(user(), *[model("", called("f:0")), result("f:0")] * 2, user())
    uses = [part for one in sent("anthropic", call)["messages"] for part in one["content"]]
    assert [part["id"] for part in uses if part["type"] == "tool_use"] == ["f_0", "f_0_2"]
    assert [part["tool_use_id"] for part in uses if part["type"] == "tool_result"] == ["f_0", "f_0_2"]


def test_a_history_with_calls_has_tools_that_anthropic_demands() -> None:
    body = sent("anthropic", ask(user(), model("", called()), result("c1")))
    assert [tool["name"] for tool in body["tools"]] == ["get_weather"]
    assert body["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize("arguments", ["", "{", "[1]", '{"x": NaN}', '{"x": ' + "[" * 5000 + "]" * 5000 + "}"])
def test_arguments_that_are_no_object_are_sent_as_one(arguments: str) -> None:
    call = ask(user(), model("", called(arguments=arguments)), result("c1"))
    right = {"invalid_arguments": arguments} if arguments else {}
    assert sent("anthropic", call)["messages"][1]["content"][0]["input"] == right
    assert sent("gemini", call)["contents"][1]["parts"][0]["functionCall"]["args"] == right


@pytest.mark.parametrize("kind", ADAPTERS)
def test_what_another_provider_kept_is_not_sent(kind: str) -> None:
    data = ProviderData(kind, "other", b'[{"type": "thinking"}, 4, "call"]')
    call = ask(user(), model("text", called(data=replace(data, json=b'{"id": "x"}')), data=data), result("c1"), user())
    assert sent(kind, call) == sent(kind, ask(user(), model("text", called()), result("c1"), user()))


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize(
    "data",
    [
        *(b"{", b"7", b'[5, "call"]', b"[4]", b'[4, "call", "call"]', b'[-1, 5, "call"]', b'[true, 3, "call"]'),
        *(b'[4, "call", null]', b'[4, "call", ["x"]]', b'[[4, 1], "call"]', b'[4, "call", "x"]', b"\xff"),
        *(b'[4, "call", {"type": "tool_use", "functionCall": {}}]', b"[" * 9000),
    ],
)
def test_what_was_kept_of_another_message_is_not_sent(kind: str, data: bytes) -> None:
    call = ask(user(), model("text", called(), data=ProviderData(kind, "local", data)), result("c1"))
    assert sent(kind, call) == sent(kind, ask(user(), model("text", called()), result("c1")))


def test_gemini_3_is_told_of_calls_that_it_did_not_make_in_the_current_turn_only() -> None:
    old = [user(), model("", called()), result("c1")]
    body = sent("gemini", ask(*old, user(), model("", called("c2"), called("c3")), result("c2"), result("c3")))
    signed = [
        part.get("thoughtSignature") for one in body["contents"] for part in one["parts"] if "functionCall" in part
    ]
    assert signed == [None, "skip_thought_signature_validator", None]
    older = replace(ask(*old), model="gemini-2.5-flash")
    assert "thoughtSignature" not in json.dumps(sent("gemini", older))


def test_an_answer_to_be_gone_on_with_does_not_end_in_white_space() -> None:
    assert sent("anthropic", ask(user(), model("So \n")))["messages"][-1]["content"] == [{"type": "text", "text": "So"}]


def test_names_of_speakers_are_said() -> None:
    assert sent("anthropic", ask(user("a", name="Ann")))["messages"][0]["content"][0]["text"] == "[Ann]"
    assert sent("gemini", ask(user("a", name="Ann")))["contents"][0]["parts"][0] == {"text": "[Ann]"}


def test_extra_fields_stand_under_those_of_the_call() -> None:
    adapter = AnthropicAdapter("local", {"thinking": {"type": "adaptive"}, "max_tokens": 9, "model": "other"})
    call = ModelCall("m", [user()], Sampling())
    body = json.loads(adapter.request(call, stream=False).body)
    assert (body["thinking"], body["max_tokens"], body["model"]) == ({"type": "adaptive"}, 9, "m")
    gemini = GeminiAdapter("local", {"generationConfig": {"topK": 5, "temperature": 1}, "safetySettings": []})
    body = json.loads(gemini.request(replace(call, sampling=Sampling(temperature=0)), stream=False).body)
    assert (body["generationConfig"], body["safetySettings"]) == ({"topK": 5, "temperature": 0}, [])


def test_a_schema_is_said_in_words_where_gemini_has_no_keyword() -> None:
    schema = {
        "definitions": {"a": {"type": "string", "pattern": "x", "description": "An a."}},
        "properties": {"a": {"$ref": "#/definitions/a"}, "b": {"allOf": [{"type": "integer"}], "default": 3}},
    }
    said = sent("gemini", ask(user(), tools=(Tool("f", "", schema),)))["tools"][0]["functionDeclarations"][0]
    assert said["parametersJsonSchema"] == {
        "$defs": {"a": {"type": "string", "description": "An a. (pattern: x)"}},
        "properties": {"a": {"$ref": "#/$defs/a"}, "b": {"type": "integer", "description": "default: 3"}},
    }


def efforts(kind: str, model_name: str, effort: str, **sampling: Any) -> dict[str, Any]:
    call = replace(CASES["text"], model=model_name, sampling=Sampling(**sampling), extra=extra(reasoning_effort=effort))
    return sent(kind, call)


def extra(**fields: Any) -> dict[str, bytes]:
    return {name: json.dumps(value).encode() for name, value in fields.items()}


@pytest.mark.parametrize(
    ("model_name", "effort", "limit", "thinking", "level", "max_tokens"),
    [
        ("claude-sonnet-4-5-20250929", "low", None, {"type": "enabled", "budget_tokens": 1024}, None, 5120),
        ("claude-3-7-sonnet-20250219", "medium", 3000, {"type": "enabled", "budget_tokens": 2999}, None, 3000),
        ("claude-opus-4-20250514", "high", 64_000, {"type": "enabled", "budget_tokens": 16_384}, None, 64_000),
        ("claude-opus-4-6", "minimal", None, {"type": "adaptive"}, "low", 4096),
        ("claude-sonnet-4-6", "xhigh", 10, {"type": "adaptive"}, "high", 10),
        ("claude-opus-4-7", "xhigh", None, {"type": "adaptive"}, "xhigh", 4096),
        ("claude-sonnet-5", "medium", None, {"type": "adaptive"}, "medium", 4096),
        ("claude-opus-4-6", "none", None, {"type": "disabled"}, None, 4096),
    ],
)
def test_anthropic_is_told_how_hard_to_think(
    model_name: str, effort: str, limit: int | None, thinking: Any, level: str | None, max_tokens: int
) -> None:
    body = efforts("anthropic", model_name, effort, max_output_tokens=limit)
    assert body["thinking"] == thinking
    assert body.get("output_config", {}).get("effort") == level
    assert body["max_tokens"] == max_tokens


@pytest.mark.parametrize(
    ("model_name", "effort", "config"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "medium", {"thinkingBudget": 8192}),
        ("gemini-3-pro", "minimal", {"thinkingLevel": "low"}),
        ("models/gemini-3-flash", "minimal", {"thinkingLevel": "minimal"}),
        ("gemini-3.1-pro", "high", {"thinkingLevel": "high"}),
    ],
)
def test_gemini_is_told_how_hard_to_think(model_name: str, effort: str, config: Any) -> None:
    assert efforts("gemini", model_name, effort)["generationConfig"]["thinkingConfig"] == config


LOW = extra(reasoning_effort="low")


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        ("anthropic", {"extra": extra(reasoning_effort="hard")}, "reasoning_effort"),
        ("anthropic", {"extra": LOW, "sampling": Sampling(max_output_tokens=9)}, "reasoning_effort"),
        ("anthropic", {"extra": LOW, "sampling": Sampling(temperature=0.5)}, "sampling.temperature"),
        ("anthropic", {"extra": LOW, "tools": (WEATHER,), "tool_choice": "required"}, "tool_choice"),
        ("anthropic", {"extra": extra(service_tier="priority")}, "service_tier"),
        ("anthropic", {"extra": extra(parallel_tool_calls="no")}, "parallel_tool_calls"),
        ("gemini", {"extra": extra(reasoning_effort="none")}, "reasoning_effort"),
        ("gemini", {"extra": extra(parallel_tool_calls=False), "tools": (WEATHER,)}, "parallel_tool_calls"),
        ("gemini", {"extra": extra(top_k="many")}, "top_k"),
    ],
)  # fmt: skip
def test_what_a_kind_can_not_honour_is_refused_by_name(kind: str, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        sent(kind, replace(CASES["text"], **changes))
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
@pytest.mark.parametrize("field", ["logit_bias", "logprobs", "prediction", "verbosity", "n_probs"])
def test_fields_without_a_counterpart_are_refused_by_name(kind: str, field: str) -> None:
    with pytest.raises(UnsupportedField) as caught:
        sent(kind, replace(CASES["text"], extra=extra(**{field: True})))
    assert [violation.field for violation in caught.value.violations] == [field]


def test_fields_with_a_counterpart_are_sent() -> None:
    asked = extra(top_k=5, parallel_tool_calls=False, service_tier="default", safety_identifier="u1", logprobs=False)
    body = sent("anthropic", replace(CASES["text"], extra=asked, tools=(WEATHER,)))
    assert (body["top_k"], body["service_tier"], body["metadata"]) == (5, "standard_only", {"user_id": "u1"})
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    asked = extra(top_k=5, parallel_tool_calls=True, logprobs=False)
    assert sent("gemini", replace(CASES["text"], extra=asked))["generationConfig"]["topK"] == 5
