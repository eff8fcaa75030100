"""The rules of the scripted model: which tool it calls with what, and what it says."""

import json
from typing import Any

import pytest

from parley_cli.embedded.script import NO_TOOLS, Call, reply


def tool(name: str, required: tuple[str, ...] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


NUMBER = {"type": "number"}
TEXT = {"type": "text"}
CLOCK = tool("current_time", timezone={"type": "string", "default": "UTC"})
ADD = tool("add", ("a", "b"), a=NUMBER, b=NUMBER)
TOOLS = [CLOCK, ADD]


def answer(text: Any, tools: list[dict[str, Any]] = TOOLS, **more: Any) -> tuple[str, Any]:
    """The tool that a message makes it call, with its arguments."""
    call = reply({"messages": [{"role": "user", "content": text}], "tools": tools, **more})
    assert isinstance(call, Call)
    return call.name, json.loads(call.arguments)


@pytest.mark.parametrize(
    ("text", "called"),
    [
        ("Add 17 and 25.", ("add", {"a": 17, "b": 25})),
        ("add a=-3 and 4.5", ("add", {"a": -3, "b": 4.5})),
        ('ADD {"b": 2, "a": 1, "c": 9}', ("add", {"a": 1, "b": 2})),
        ("add a=one b=2", ("add", {"a": 1, "b": 2})),
        ("add nothing", ("add", {"a": 1, "b": 1})),
        ("What time is it?", ("current_time", {})),
        ("What time is it in timezone=Asia/Tokyo?", ("current_time", {"timezone": "Asia/Tokyo"})),
        ("current_time timezone=Asia/Tokyo, please", ("current_time", {"timezone": "Asia/Tokyo"})),
        ("address 17", ("current_time", {})),
        ("", ("current_time", {})),
        ([TEXT | {"text": "add 1"}, {"type": "image_url"}, TEXT | {"text": "2"}], ("add", {"a": 1, "b": 2})),
    ],
)
def test_the_message_names_the_tool_and_its_arguments(text: Any, called: tuple[str, Any]) -> None:
    assert answer(text) == called


def test_arguments_fit_their_schemas() -> None:
    form = tool(
        "book",
        ("place", "seats", "window", "class", "notes", "extras", "when"),
        place={"type": "string"},
        seats={"anyOf": [{"type": "integer"}, {"type": "null"}]},
        window={"type": ["boolean", "null"]},
        notes={"type": "array"},
        extras={"type": "object"},
        when={"type": "string", "default": "today"},
        **{"class": {"type": "string", "enum": ["second", "first"]}},
    )
    plain = {"seats": 1, "window": False, "class": "second", "notes": [], "extras": {}, "when": "today"}
    assert answer("Book!", [form]) == ("book", {"place": "Book!", **plain})
    text = 'place="New York" seats=2 window=true class=first notes=[1] extras={"a":1} when=noon'
    given = {"seats": 2, "window": True, "class": "first", "notes": [1], "extras": {"a": 1}, "when": "noon"}
    assert answer(text, [form])[1] == {"place": "New York", **given}
    wrong = "place=Rome seats=2.5 window=2 class=third notes=1 extras=[]"
    assert answer(wrong, [form])[1] == {"place": "Rome", **plain}
    assert answer("x", [{"type": "function", "function": {"name": "f"}}]) == ("f", {})


def test_a_choice_of_tools_is_kept_to() -> None:
    only = {"type": "function", "function": {"name": "add"}}
    assert answer("What time is it?", tool_choice=only)[0] == "add"
    assert answer("What time is it?", tool_choice="required")[0] == "current_time"
    refused = {"messages": [{"role": "user", "content": "add"}], "tools": TOOLS, "tool_choice": "none"}
    assert reply(refused) == NO_TOOLS


def test_results_are_quoted_with_their_tools() -> None:
    calls = [{"id": "1", "function": {"name": "add"}}, {"id": "2", "function": {"name": "current_time"}}]
    messages = [
        {"role": "user", "content": "add"},
        {"role": "tool", "tool_call_id": "0", "content": "earlier"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "noon"}]},
    ]
    quoted = "The tool add returned: 42\nThe tool current_time returned: noon"
    assert reply({"messages": messages, "tools": TOOLS}) == quoted
    assert reply({"messages": messages[1:2]}) == "The tool that I called returned: earlier"


def test_without_tools_it_says_what_it_is() -> None:
    assert "a script, not a language model" in NO_TOOLS
    assert reply({"messages": [{"role": "user", "content": "Hello"}]}) == NO_TOOLS
    assert reply({"messages": [{"role": "system", "content": "Be brief."}], "tools": TOOLS}) == NO_TOOLS


@pytest.mark.parametrize("messages", [None, [], "x", ["x"]])
def test_a_request_without_messages_is_refused(messages: Any) -> None:
    with pytest.raises(ValueError, match="messages must be"):
        reply({"messages": messages})
