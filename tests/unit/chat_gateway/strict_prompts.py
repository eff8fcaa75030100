"""What strict providers refuse: the pairing rules of OpenAI, Anthropic and Gemini, and templates of one system head."""

import json
from collections.abc import Sequence
from typing import Any

from chat_gateway.model.turn import ImagePart, Message, TextPart, ToolCall
from contract.enums import Role


def check_prompt(messages: Sequence[Message]) -> None:
    """Fails for a prompt that one of them would refuse."""
    assert any(message.role is not Role.SYSTEM for message in messages), "a prompt is more than instructions"
    _check_contents(messages)
    _check_openai(messages)
    _check_anthropic(messages)
    _check_gemini(messages)


def check_one_system(messages: Sequence[Message]) -> None:
    """Fails for a prompt that a template refuses which takes one system message, at the head."""
    assert [index for index, message in enumerate(messages) if message.role is Role.SYSTEM] in ([], [0])


def messages_on_the_wire(body: bytes) -> list[Message]:
    """Returns the messages of a request of chat completions."""
    return [_message(said) for said in json.loads(body)["messages"]]


def check_messages_api(body: bytes) -> None:
    """Fails for a request that Anthropic's Messages API would refuse for its messages."""
    messages = json.loads(body)["messages"]
    assert [said["role"] for said in messages] == [("user", "assistant")[n % 2] for n in range(len(messages))]
    waiting: list[str] = []
    for said in messages:
        assert said["content"], "no message is empty"
        _check_texts(said["content"])
        answered = [block["tool_use_id"] for block in said["content"] if block["type"] == "tool_result"]
        assert sorted(answered) == sorted(waiting), "calls have their results in the next message, each once"
        kinds = [block["type"] for block in said["content"]]
        assert "tool_result" not in kinds[len(answered) :], "results come before what else is said"
        waiting = [block["id"] for block in said["content"] if block["type"] == "tool_use"]
    assert not waiting, "every call has a result"


def check_generate_content(body: bytes) -> None:
    """Fails for a request that Gemini's generateContent would refuse for its contents."""
    contents = json.loads(body)["contents"]
    assert [said["role"] for said in contents] == [("user", "model")[n % 2] for n in range(len(contents))]
    waiting: list[str] = []
    for said in contents:
        assert said["parts"], "no content is empty"
        _check_texts(said["parts"])
        answered = [part["functionResponse"]["name"] for part in said["parts"] if "functionResponse" in part]
        assert answered == waiting, "calls have their responses in the next content, as many and in order"
        waiting = [part["functionCall"]["name"] for part in said["parts"] if "functionCall" in part]
    assert not waiting, "every call has a response"


def _message(said: dict[str, Any]) -> Message:
    content = said["content"]
    calls = [
        ToolCall(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in said.get("tool_calls", ())
    ]
    return Message(
        Role.SYSTEM if said["role"] == "developer" else Role(said["role"]),
        content if isinstance(content, str) else "",
        parts=tuple(TextPart(part["text"]) for part in content) if isinstance(content, list) else (),
        tool_calls=tuple(calls),
        tool_call_id=said.get("tool_call_id", ""),
    )


def _check_texts(blocks: Sequence[dict[str, Any]]) -> None:
    assert all(block["text"].strip() for block in blocks if "text" in block), "no text is blank"


def _check_contents(messages: Sequence[Message]) -> None:
    for message in messages:
        assert message.content.strip() or message.parts or message.tool_calls, "no message is empty"
        for part in message.parts:
            assert isinstance(part, ImagePart) or part.text.strip(), "no part is empty"


def _check_openai(messages: Sequence[Message]) -> None:
    """Behind calls come their results, each once and nothing else, until all are there."""
    waiting: set[str] = set()
    for message in messages:
        if message.role is Role.TOOL:
            assert message.tool_call_id in waiting, "a result follows its call"
            waiting.discard(message.tool_call_id)
        else:
            assert not waiting, "every call has a result before anything else is said"
            waiting = {call.id for call in message.tool_calls}
            assert len(waiting) == len(message.tool_calls)
    assert not waiting, "every call has a result"


def _check_anthropic(messages: Sequence[Message]) -> None:
    """Ids of calls are unique in the whole prompt."""
    ids = [call.id for message in messages for call in message.tool_calls]
    assert len(ids) == len(set(ids))


def _check_gemini(messages: Sequence[Message]) -> None:
    """A function call comes behind a user's message or a function's response."""
    said = [message for message in messages if message.role is not Role.SYSTEM]
    for before, message in zip([None, *said], said, strict=False):
        if message.tool_calls:
            assert before is not None, "a function call is not the first"
            assert before.role in (Role.USER, Role.TOOL), "a function call comes behind a user or a result"
