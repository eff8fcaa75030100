"""Transcripts as agent frameworks write them, as they come over HTTP: each is the history of its session."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from access.caller import ANONYMOUS
from chat_gateway.http_edge.openai.chat.handler import read_request
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model.errors import HistoryMismatch
from chat_gateway.model.rules import DEFAULT_BOUNDS
from chat_gateway.model.turn import FinishReason, Message, OnDelta, ToolCall, Usage
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from contract.enums import Role
from tests.unit.chat_gateway.world import World

TEXT = "Let me look."
CALLS = (ToolCall("c1", "f", '{"x": 1}'), ToolCall("c2", "g", '{"y": 2}'))
USER = {"role": "user", "content": "one"}
AGAIN = {"role": "user", "content": "two"}
DONE = {"role": "assistant", "content": "done"}


class Model:
    """Calls two tools at once, with a word about it, and then answers."""

    name = "local"

    def __init__(self, said: Message) -> None:
        self.calls: list[ModelCall] = []
        self._said = said

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        self.calls.append(call)
        first = len(self.calls) == 1
        said = self._said if first else Message(Role.ASSISTANT, "done")
        reason = FinishReason.TOOL_CALLS if first else FinishReason.STOP
        return ModelAnswer(said, reason, Usage(), "m")


def call(number: int) -> dict[str, Any]:
    one = CALLS[number]
    return {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}


def says(content: Any, *calls: int, **more: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **more}
    return said | {"tool_calls": [call(number) for number in calls]} if calls else said


def result(number: int, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": CALLS[number].id, "content": str(number), **more}


@dataclass
class Row:
    """What a client sends again of the answer with its calls, and the results; `ran`: those whose results it has."""

    again: list[dict[str, Any]]
    ran: tuple[int, ...] = (0, 1)
    said: Message = field(default_factory=lambda: Message(Role.ASSISTANT, TEXT, tool_calls=CALLS))


BOTH = [result(0), result(1)]
ROWS = {
    "openai: as it came": Row([says(TEXT, 0, 1), *BOTH]),
    "a text, then the calls": Row([says(TEXT), says(None, 0, 1), *BOTH]),
    "the calls, then a text": Row([says(None, 0, 1), says(TEXT), *BOTH]),
    "each call an answer": Row([says(TEXT), says(None, 0), says(None, 1), *BOTH]),
    "each call an answer, the text with the first": Row([says(TEXT, 0), says("", 1), *BOTH]),
    "each call an answer with its result": Row([says(TEXT, 0), result(0), says(None, 1), result(1)]),
    "an empty answer between": Row([says(TEXT), says(""), says(None, 0, 1), *BOTH]),
    "CrewAI, Semantic Kernel: no text beside calls": Row([says(None, 0, 1), *BOTH]),
    "CrewAI: the first call alone, and a word of its own": Row(
        [says(None, 0), result(0, name="f"), {"role": "user", "content": "Analyze the tool result."}], ran=(0,)
    ),
    "Semantic Kernel: no content at all": Row(
        [{"role": "assistant", "tool_calls": [call(0), call(1)], "name": "Agent"}, *BOTH]
    ),
    "AutoGen: a blank for no text": Row(
        [says(" ", 0, 1, name="agent"), *BOTH], said=Message(Role.ASSISTANT, tool_calls=CALLS)
    ),
    "LlamaIndex: results as parts": Row(
        [
            says(TEXT, 0, 1),
            *[{**one, "content": [{"type": "text", "text": one["content"]}]} for one in BOTH],
        ]
    ),
    "LangChain: text in parts, a name for each result": Row(
        [says([{"type": "text", "text": TEXT}], 0, 1), result(0, name="f"), result(1, name="g")]
    ),
    "LangChain: calls as parts, too": Row(
        [
            says(
                [
                    {"type": "text", "text": TEXT},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
                    {"type": "tool_use", "id": "c2", "name": "g", "input": {"y": 2}},
                ],
                0,
                1,
            ),
            *BOTH,
        ]
    ),
    "LiteLLM: function_call null": Row(
        [says(TEXT, 0, 1, function_call=None, provider_specific_fields={"refusal": None}), *BOTH]
    ),
    "openai: model_dump of the answer": Row(
        [says(TEXT, 0, 1, refusal=None, annotations=[], audio=None, function_call=None), *BOTH]
    ),
}


def body(*messages: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"model": "support", "messages": list(messages), "session_id": "s", **more}).encode()


async def send(world: World, *messages: dict[str, Any], **more: Any) -> None:
    _, request = read_request(body(*messages, **more), TurnHeaders(), ANONYMOUS, DEFAULT_BOUNDS)
    await world.runner.run(request)


def stored(world: World) -> list[tuple[str, str]]:
    return [(one.role.value, one.content) for turn in world.sessions.turns["s"] for one in turn.messages]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
async def test_a_transcript_is_the_history(row: Row) -> None:
    model = Model(row.said)
    world = World(provider=model)  # type: ignore[arg-type]
    await send(world, USER)
    await send(world, USER, *row.again)
    results = [("tool", str(number)) for number in row.ran]
    own = [("user", one["content"]) for one in row.again if one["role"] == "user"]
    whole = [("user", "one"), ("assistant", row.said.content), *results, *own, ("assistant", "done")]
    assert stored(world) == whole
    prompt = model.calls[-1].messages[1:]
    assert [one.tool_call_id for one in prompt if one.role is Role.TOOL] == [one.id for one in CALLS]
    assert [one.content for one in prompt if one.role is Role.TOOL][: len(row.ran)] == [text for _, text in results]
    assert [one.content for one in prompt if one.role is Role.USER] == ["one", *[text for _, text in own]]
    await send(world, USER, *row.again, DONE, AGAIN)
    assert stored(world) == [*whole, ("user", "two"), ("assistant", "done")]


@pytest.mark.parametrize(
    "again",
    [
        [says("Something else.", 0, 1), *BOTH],
        [says(TEXT), says("and more"), says(None, 0, 1), *BOTH],
        [says(TEXT, 0, 1) | {"tool_calls": [{**call(0), "function": {"name": "f", "arguments": "{}"}}]}, result(0)],
        [says(None, 0, 1) | {"tool_calls": [call(0), {**call(1), "id": "c3"}, {**call(1), "id": "c4"}]}, result(0)],
        # smolagents writes calls and results as texts: `history: replace` is for it.
        [says(f"{TEXT}\nCalling tools:\n[...]"), {"role": "user", "content": "Observation:\n0\n1"}],
    ],
)
async def test_what_is_another_answer_is_refused_and_may_replace_it(again: list[dict[str, Any]]) -> None:
    world = World(provider=Model(Message(Role.ASSISTANT, TEXT, tool_calls=CALLS)))  # type: ignore[arg-type]
    await send(world, USER)
    with pytest.raises(HistoryMismatch) as caught:
        await send(world, USER, *again)
    assert caught.value.metadata["first_difference"] == "1"
    await send(world, USER, *again, history="replace")
    assert stored(world)[-1] == ("assistant", "done")


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
async def test_without_a_session_the_model_reads_the_same(row: Row) -> None:
    model = Model(Message(Role.ASSISTANT, "done"))
    world = World(provider=model)  # type: ignore[arg-type]
    _, request = read_request(
        json.dumps({"model": "support", "messages": [USER, *row.again], "store": False}).encode(),
        TurnHeaders(),
        ANONYMOUS,
        DEFAULT_BOUNDS,
    )
    await world.runner.run(request)
    prompt = model.calls[-1].messages[1:]
    results = [one.content for one in prompt if one.role is Role.TOOL]
    assert results == [str(number) for number in row.ran]
    own = [one["content"] for one in row.again if one["role"] == "user"]
    assert [one.content for one in prompt if one.role is Role.USER] == ["one", *own]
