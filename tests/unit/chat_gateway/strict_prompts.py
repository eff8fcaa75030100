"""What strict providers refuse: the pairing rules of OpenAI, Anthropic and Gemini, and templates of one system head."""

from collections.abc import Sequence

from chat_gateway.model.turn import ImagePart, Message
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
