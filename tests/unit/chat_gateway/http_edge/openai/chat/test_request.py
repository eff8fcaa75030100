"""OpenAI's chat completion requests as turns."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from access.caller import Caller
from access.errors import UserDenied
from chat_gateway.http_edge.openai.chat.request import decode_request, extra_fields, param_of, to_turn_request
from chat_gateway.http_edge.wire.errors import MalformedBody
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model import turn as model
from chat_gateway.model.not_found import ModelNotFound
from chat_gateway.model.rules import RequestBounds, check_turn_request
from contract.fields import is_user_id
from servicekit.errors import InvalidArgument

USER = {"role": "user", "content": "Hi"}


def turn(headers: dict[str, str] | None = None, **fields: Any) -> model.TurnRequest:
    body = {"model": "hello", "messages": [USER]} | fields
    chat, nested = decode_request(json.dumps(body).encode())
    return to_turn_request(chat, TurnHeaders(**(headers or {})), nested=nested)


def violations(headers: dict[str, str] | None = None, **fields: Any) -> list[str]:
    with pytest.raises(InvalidArgument) as caught:
        turn(headers, **fields)
    return [violation.field for violation in caught.value.violations]


def test_the_least_that_can_be_asked() -> None:
    assert turn() == model.TurnRequest(agent_id="hello", messages=(model.Message(model.Role.USER, "Hi"),))


def test_everything_that_can_be_asked() -> None:
    function = {"name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True}
    asked = turn(
        {"request_id": "k1"},
        model="hello@3",
        temperature=0.5,
        top_p=1,
        max_tokens=7,
        max_completion_tokens=7,
        stop="END",
        seed=4,
        presence_penalty=-1,
        frequency_penalty=1.5,
        tools=[{"type": "function", "function": function}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        response_format={"type": "json_object"},
        n=1,
        metadata={"team": "cx"},
        session_id="s1",
        user_id="ann",
        user="ignored where user_id is given",
        session_must_exist=True,
        busy="interrupt",
        on_disconnect="finish",
        logit_bias={"50256": -100},
        service_tier="auto",
        modalities=["text"],
        logprobs=False,
    )
    assert asked == model.TurnRequest(
        agent_id="hello",
        agent_revision=3,
        messages=(model.Message(model.Role.USER, "Hi"),),
        session_id="s1",
        user_id="ann",
        session_must_exist=True,
        busy=model.BusyPolicy.INTERRUPT,
        on_disconnect=model.OnDisconnect.FINISH,
        request_id="k1",
        sampling=model.Sampling(0.5, 1.0, 7, ("END",), 4, -1.0, 1.5),
        tools=(model.Tool("weather", "d", {"type": "object"}, True),),
        tool_choice="weather",
        response_format={"type": "json_object"},
        metadata={"team": "cx"},
    )


def test_null_is_the_same_as_left_out() -> None:
    nothing = ("temperature", "stop", "tools", "tool_choice", "user", "session_id", "stream", "store", "metadata", "n")
    assert turn(**dict.fromkeys(nothing)) == turn()


def test_every_kind_of_message() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    asked = turn(
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": [{"type": "text", "text": "What?"}, picture], "name": "Ann"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "a cat", "tool_call_id": "c1"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        ]
    )
    assert asked.messages == (
        model.Message(model.Role.SYSTEM, "ab"),
        model.Message(
            model.Role.USER, parts=(model.TextPart("What?"), model.ImagePart("https://x/y.png", "low")), name="Ann"
        ),
        model.Message(model.Role.ASSISTANT, tool_calls=(model.ToolCall("c1", "look", "{}"),)),
        model.Message(model.Role.TOOL, "a cat", tool_call_id="c1"),
        model.Message(model.Role.ASSISTANT, refusal="no"),
    )


def test_a_user_by_openais_name() -> None:
    assert turn(user="ann").user_id == "ann"
    assert turn({"user_id": "bob"}, user="ann").user_id == "bob"


@pytest.mark.parametrize("text", ["Ada Lovelace", "Åsa", "山田", " ", "a\nb\0", "x" * 255 + "é", "user-" + "0f" * 32])
def test_openais_user_is_any_text_and_each_text_a_user_of_its_own(text: str) -> None:
    user_id = turn(user=text).user_id
    assert is_user_id(user_id)
    assert turn(user=text).user_id == user_id
    assert turn(user=text + "2" if len(text) < 256 else "2").user_id != user_id
    assert turn(user=user_id).user_id != user_id, "no other text names the same user"
    assert turn({"user_id": user_id}).user_id == user_id
    check_turn_request(turn(user=text))


def test_openais_user_has_a_bound_and_binds_like_any() -> None:
    assert violations(user="x" * 257, temperature=9) == ["user", "temperature"]
    assert violations(user="é" * 257, user_id="ann") == ["user"]
    assert turn(user="").user_id == ""
    bound = Caller("key", "p", frozenset(), user_id="ann")
    for other in ("bob", "Ada Lovelace"):
        body = json.dumps({"model": "a", "messages": [USER], "user": other}).encode()
        with pytest.raises(UserDenied):
            to_turn_request(decode_request(body)[0], TurnHeaders(), bound)


@pytest.mark.parametrize("name", ["gpt-4.1", "Support", "openai/gpt-4o", "@cf/meta/llama", "Support@3", "gpt-4.1@x"])
def test_a_model_that_can_be_no_agent_is_not_found_as_openai_says(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        turn(model=name)
    assert [violation.field for violation in caught.value.violations] == ["model"]
    assert name in caught.value.message
    assert violations(model=name, temperature=9, n=2) == ["n", "model", "temperature"]
    assert violations(model=name, max_tokens=0) == ["max_tokens", "model"]


def test_a_model_that_is_not_named_is_a_field_that_is_wrong() -> None:
    assert violations(model="support@x") == ["model"]
    assert turn(model="").agent_id == ""


def test_bounds_that_are_set_count_beside_other_faults() -> None:
    def fields(bounds: RequestBounds) -> list[str]:
        body = json.dumps({"model": "a", "messages": [USER] * 3, "n": 2}).encode()
        with pytest.raises(InvalidArgument) as caught:
            to_turn_request(decode_request(body)[0], TurnHeaders(), bounds=bounds)
        return [violation.field for violation in caught.value.violations]

    assert fields(RequestBounds(2)) == ["n", "messages"]
    assert fields(RequestBounds(3)) == ["n"]


def test_store_false_is_stateless_and_no_other_value_is() -> None:
    assert turn(store=False).stateless
    assert not turn(store=True).stateless


@pytest.mark.parametrize(("header", "value"), [("session_id", "s1"), ("user_id", "ann"), ("busy", "reject")])
def test_headers_stand_in_for_fields_and_must_not_contradict_them(header: str, value: str) -> None:
    assert getattr(turn({header: value}), header) == value
    assert getattr(turn({header: value}, **{header: value}), header) == value
    assert violations({header: "wait"}, **{header: value}) == [header]


def test_other_fields_are_the_providers_word_for_word() -> None:
    body = b'{"model": "a", "messages": [], "top_k": 4, "min_p":null, "thinking": {"type": "on"}, "logprobs": true}'
    extra = extra_fields(body)
    assert extra == {"logprobs": b"true", "thinking": b'{"type": "on"}', "top_k": b"4"}
    chat, _ = decode_request(body)
    assert to_turn_request(chat, TurnHeaders(), extra=extra).extra == extra
    assert extra_fields(b'{"model": "a", "messages": [], "seed": 1}') == {}


def test_all_violations_come_at_once() -> None:
    assert violations(
        model="hello@0",
        messages=[{"role": "bot", "content": [{"type": "video"}, {"type": "text"}]}],
        n=3,
        functions=[{"name": "f"}],
        function_call="auto",
        audio={"voice": "x"},
        busy="never",
        on_disconnect="explode",
        tools=[{"type": "function"}, {"type": "web_search"}],
        tool_choice={"type": "allowed_tools"},
    ) == [
        "model",
        "n",
        "functions",
        "function_call",
        "audio",
        "busy",
        "on_disconnect",
        "messages[0].role",
        "messages[0].content[0].type",
        "messages[0].content[1].text",
        "tools[0].function",
        "tools[1].type",
        "tool_choice",
    ]


@pytest.mark.parametrize("name", ["auto", "none", "required"])
def test_a_tool_named_like_a_reserved_word_can_not_be_chosen(name: str) -> None:
    choice = {"type": "function", "function": {"name": name}}
    assert violations(tool_choice=choice) == ["tool_choice.function.name"]


def test_some_of_the_tools_are_allowed() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("weather", "locate")]
    allowed = {"mode": "required", "tools": [tools[0], {"type": "function", "function": {"name": "agents_own"}}]}
    asked = turn(tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool.name for tool in asked.tools] == ["weather"]
    assert (asked.allowed_tools, asked.tool_choice) == (frozenset({"weather", "agents_own"}), "required")
    wrong = {"mode": "none", "tools": [{"type": "mcp", "function": {"name": "x"}}]}
    assert violations(tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": wrong}) == [
        "tool_choice.allowed_tools.mode",
        "tool_choice.allowed_tools.tools[0].type",
    ]
    nothing = {"mode": "auto", "tools": []}
    assert violations(tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": nothing}) == [
        "tool_choice.allowed_tools.tools"
    ]


def test_pictures_are_for_users() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://x"}}
    assert violations(messages=[{"role": "system", "content": [part]}]) == ["messages[0].content[0].type"]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("agent_id", "model"),
        ("agent_revision", "model"),
        ("request_id", "Idempotency-Key"),
        ("sampling.top_p", "top_p"),
        ("sampling.max_output_tokens", "max_completion_tokens"),
        ("messages[3].parts[1].image_url.url", "messages[3].content[1].image_url.url"),
        ("messages[3].parts", "messages[3].content"),
        ("messages[3].content", "messages[3].content"),
        ("messages[3].parts[1].file.data", "messages[3].content[1].file.file_data"),
        ("messages[3].parts[1].input_audio.format", "messages[3].content[1].input_audio.format"),
        ("tools[2].name", "tools[2].function.name"),
        ("tools[2].type", "tools[2].type"),
        ("tools", "tools"),
        ("session_id", "session_id"),
    ],
)
def test_fields_of_a_turn_by_openais_names(field: str, name: str) -> None:
    assert param_of(field) == name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["model", "messages", "stream", "stop", "tools", "tool_choice", "metadata", "response_format", "n", "busy"]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_no_json_is_anything_but_a_turn_or_a_named_error(fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "hello", "messages": [USER]} | fields).encode()
    with contextlib.suppress(InvalidArgument, MalformedBody, ModelNotFound):
        assert isinstance(to_turn_request(decode_request(body)[0], TurnHeaders()), model.TurnRequest)


@given(st.binary(max_size=40))
def test_no_bytes_are_anything_but_a_request_or_a_named_error(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode_request(body)


def test_messages_may_be_left_out_with_approvals_only() -> None:
    said = {"model": "hello", "session_id": "s", "approvals": [{"tool_call_id": "c1", "approve": True}]}
    approving = to_turn_request(decode_request(json.dumps(said).encode())[0], TurnHeaders())
    check_turn_request(approving)
    assert (approving.messages, len(approving.approvals)) == ((), 1)
    silent = to_turn_request(decode_request(b'{"model": "hello"}')[0], TurnHeaders())
    with pytest.raises(InvalidArgument) as caught:
        check_turn_request(silent)
    assert [violation.field for violation in caught.value.violations] == ["messages"]
