"""Whatever the pieces of a stream: what the caller was shown of an answer is the answer."""

import json
import random
from typing import Any

import pytest

from chat_gateway.model.turn import Delta, Tool
from chat_gateway.providers.adapter import BadAnswer
from chat_gateway.providers.openai.answer import CompletionStream
from chat_gateway.providers.openai.dialect import Dialects

STREAMS = 300
SWITCHES: tuple[dict[str, Any], ...] = ({}, {"finish_reason": False}, {"think_tags": True})
TOOLS = ((), (Tool("f"),), tuple(map(Tool, ("get", "get_weather", "f", "g"))))
NAMES = ("get", "_weather", "get_weather", "f", "g", "", None)
ARGUMENTS = ("{}", "", '{"x"', ":1}", '{"x":1}', " ", {}, {"x": 1}, None, "}")
CONTENTS = ("a", "<think>", "</think>", "", None, [{"type": "text", "text": "c"}], "\ud83d", "\ude00")


def call(pick: random.Random) -> dict[str, Any]:
    function = {"name": pick.choice(NAMES), "arguments": pick.choice(ARGUMENTS)}
    said = {
        "index": pick.choice([0, 0, 1, 2, None, "1"]),
        "id": pick.choice(["a", "b", "", None]),
        "function": function,
    }
    return {name: one for name, one in said.items() if name == "function" or pick.random() < 0.7}


def chunk(pick: random.Random) -> bytes:
    kinds: list[dict[str, Any]] = [
        {"tool_calls": [call(pick) for _ in range(pick.choice([1, 1, 2]))]},
        {"content": pick.choice(CONTENTS)},
        {pick.choice(["reasoning", "thinking", "reasoning_content"]): "h"},
        {"function_call": {"name": "f", "arguments": "{}"}},
    ]
    choice: dict[str, Any] = {"index": 0, "delta": pick.choices(kinds, (6, 2, 1, 1))[0]}
    if pick.random() < 0.1:
        choice["finish_reason"] = pick.choice(["stop", "tool_calls", "length", "null", "abort"])
    if pick.random() < 0.05:
        choice = {"index": 0, "message": {"content": "ab", "tool_calls": [call(pick)]}}
    return json.dumps({"choices": [choice]}).encode()


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("tools", TOOLS)
def test_what_is_shown_is_what_is_answered(switches: dict[str, Any], tools: tuple[Tool, ...]) -> None:
    answered = 0
    for seed in range(STREAMS):
        pick = random.Random(seed)
        chunks = [chunk(pick) for _ in range(pick.randint(1, 7))]
        end = json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}).encode()
        stream = CompletionStream("m", Dialects("compatible", switches).of("m"), "p", tools)
        try:
            shown = [delta for one in [*chunks, end] if (delta := stream.add([one]))]
            answer = stream.answer().message
        except BadAnswer:
            continue
        answered += 1
        calls = shown_calls(shown)
        assert "".join(one.content for one in shown) == answer.content, seed
        assert "".join(one.reasoning for one in shown) == answer.reasoning, seed
        assert calls == [[one.id, one.name, one.arguments] for one in answer.tool_calls], seed
    assert answered > STREAMS / 10


def shown_calls(shown: list[Delta]) -> list[list[str]]:
    """Puts calls together as OpenAI's client does, in the order in which it sees them."""
    calls: dict[int, list[str]] = {}
    for piece in [one for delta in shown for one in delta.tool_calls]:
        call = calls.setdefault(piece.index, ["", "", ""])
        for place, said in enumerate((piece.id, piece.name, piece.arguments)):
            call[place] += said
    assert list(calls) == sorted(calls)
    return list(calls.values())
