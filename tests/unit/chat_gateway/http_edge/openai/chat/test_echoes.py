"""What other providers and gateways put beside their answers, and clients send again with them."""

import json
from typing import Any

import pytest

from chat_gateway.digest import request_digest
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

ECHOES: dict[str, tuple[list[Any], str]] = {
    "a signature of a call": (
        [answered(tool_calls=[{**CALL, "thought_signature": "s"}]), RESULT],
        "messages[1].tool_calls[0].thought_signature",
    ),
    "kept beside a call": (
        [answered(tool_calls=[{**CALL, "extra_content": {"google": {"s": "x"}}}]), RESULT],
        "messages[1].tool_calls[0].extra_content.google",
    ),
    "kept beside an answer": (
        [answered(extra_content={"google": {"s": "x"}}), USER],
        "messages[1].extra_content.google",
    ),
    **{
        f"{name} of an answer": ([answered(**{name: value}), USER], f"messages[1].{name}")
        for name, value in {
            "encrypted_content": "x",
            "reasoning": {"effort": "high"},
            "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
            "reasoning_items": [{"id": "rs_1"}],
            "reasoning_opaque": "x",
            "reasoning_signature": "x",
            "reasoning_text": "hm",
            "signature": "x",
            "thinking": "hm",
            "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "x"}],
            "thinking_signature": "x",
            "thoughtSignature": "x",
            "thought_signature": "x",
        }.items()
    },
}


@pytest.mark.parametrize("row", ECHOES)
def test_what_another_provider_put_beside_its_answer_goes_to_those_that_take_it(row: str) -> None:
    messages, path = ECHOES[row]
    request = asked([USER, *messages])
    assert at(sent(request), path) == at({"messages": [USER, *messages]}, path)
    assert request_digest(request) != request_digest(asked([USER, {**messages[0], "content": "no"}, *messages[1:]]))
    plain = [{key: value for key, value in messages[0].items() if key in ("role", "content", "tool_calls")}]
    without = asked([USER, *plain, *messages[1:]])
    for preset in ("openai", "mistral"):
        assert path.rpartition(".")[2] not in json.dumps(sent(request, preset))
    if "tool_calls" not in messages[0]:
        assert gemini_call(called(request), "p", {}) == gemini_call(called(without), "p", {})
        whole = [anthropic_call(called(one), "p", {}, stream=False) for one in (request, without)]
        assert whole[0] == whole[1]


THOUGHTS: dict[str, tuple[dict[str, Any], str]] = {
    "Anthropic's": ({"type": "thinking", "thinking": "hm", "signature": "x"}, "hm"),
    "Anthropic's, hidden": ({"type": "redacted_thinking", "data": "x"}, ""),
    "Mistral's": ({"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True}, "hm"),
    "LangChain's": ({"type": "reasoning", "reasoning": "hm", "index": 0, "extras": {"signature": "x"}}, "hm"),
    "Vercel's": ({"type": "reasoning", "text": "hm", "providerOptions": {}}, "hm"),
    "OpenAI's": ({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}, "hm"),
    "Bedrock's": ({"type": "reasoning_content", "reasoning_content": {"text": "hm", "signature": "x"}}, "hm"),
    "with nothing": ({"type": "thinking"}, ""),
}


@pytest.mark.parametrize("row", THOUGHTS)
def test_thoughts_among_an_answers_parts_are_its_reasoning(row: str) -> None:
    part, reasoning = THOUGHTS[row]
    request = asked([USER, answered(content=[part, TEXT]), USER])
    assert request.messages == asked([USER, answered(content="x", reasoning_content=reasoning), USER]).messages
    assert request.messages[1].reasoning == reasoning
    for preset in ("compatible", "openai"):
        assert sent(request, preset)["messages"][1] == {"role": "assistant", "content": "x"}
    for role in ("user", "system", "tool"):
        with pytest.raises(ServiceError, match="is not a part that"):
            asked([USER, answered(tool_calls=[CALL]), {"role": role, "tool_call_id": "c", "content": [part]}])


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
        {"type": "tool_call", "id": "c", "name": "f", "args": {}},
        {"type": "function_call", "call_id": "c", "arguments": "{}"},
    ],
)
def test_a_part_that_is_a_call_of_the_message_says_nothing_more(part: dict[str, Any]) -> None:
    request = asked([USER, answered(content=[TEXT, part], tool_calls=[CALL]), RESULT])
    assert request.messages == asked([USER, answered(content="x", tool_calls=[CALL]), RESULT]).messages
    with pytest.raises(ServiceError, match=r"messages\[1\].content\[0\].type"):
        asked([USER, answered(content=[part]), USER])
