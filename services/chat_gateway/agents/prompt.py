"""Builds prompts that every provider accepts, for any window and any request (invariant 10)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

from chat_gateway.model.answers import joined
from chat_gateway.model.turn import Message, TextPart, ToolCall
from chat_gateway.providers.paired import NO_RESULT
from contract.enums import Role

NO_OUTPUT = "(no output)"
NO_TEXT = "(no text)"
LATE_RESULT = "Result of the tool call {id}, which came late:\n{text}"


def prompt_messages(instructions: str, window: Sequence[Message], new: Sequence[Message]) -> list[Message]:
    """Returns what the model is sent, oldest first.

    Every tool call has exactly one result, directly after its message, and call ids are unique. A call without a result
    gets a placeholder result (its caller crashed, or the user changed the subject). A late result, or one whose call is
    outside the window, becomes text of the user. No message is empty: an answer without text is omitted, and a refusal
    is sent as text. Every prompt has a user message before the first tool call. None of this is stored.
    """
    head = [Message(Role.SYSTEM, instructions)] if instructions else []
    if new and new[-1].role is Role.USER and _are_plain(window) and _are_plain(new):
        return [*head, *window, *new]
    return [*head, *_Pairing().of(chain(window, new))]


def _are_plain(messages: Iterable[Message]) -> bool:
    """Whether the messages can be sent unchanged in any context."""
    for message in messages:
        content = message.content
        if not content or message.tool_calls or message.tool_call_id or content.isspace():
            return False
    return True


class _Pairing:
    """Groups the messages between two assistant messages: results first, then the others."""

    def __init__(self) -> None:
        self._out: list[Message] = []
        self._used: set[str] = set()
        """Call ids in the prompt: some providers require them to be unique, but models may reuse them."""
        self._open: dict[str, str] = {}
        """Calls without a result yet, and their ids in the prompt."""
        self._answered: set[str] = set()
        """Calls with a result, by their own ids."""
        self._said: list[Message] = []

    def of(self, messages: Iterable[Message]) -> list[Message]:
        for message in _with_calls_in_one(messages):
            if message.role is Role.ASSISTANT:
                self._assistant(message)
            elif message.role is Role.TOOL:
                self._result(message)
            else:
                self._said.append(message)
        self._close()
        if all(message.role is Role.SYSTEM for message in self._out):
            self._out.append(Message(Role.USER, NO_TEXT))
        return self._out

    def _assistant(self, message: Message) -> None:
        self._close()
        calls = message.tool_calls
        if calls:
            before = next((one.role for one in reversed(self._out) if one.role is not Role.SYSTEM), None)
            if before is None or before is Role.ASSISTANT:
                self._out.append(Message(Role.USER, NO_TEXT))
            text, named = _text(message), self._named(calls)
            if text != message.content or message.refusal or named != calls:
                message = replace(message, content=text, refusal="", tool_calls=named)
            self._out.append(message)
        elif text := _text(message):
            self._out.append(message if text == message.content else replace(message, content=text, refusal=""))

    def _named(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        named = []
        for call in calls:
            new_id, number = call.id, 2
            while new_id in self._used:
                new_id, number = f"{call.id}_{number}", number + 1
            self._used.add(new_id)
            self._open[call.id] = new_id
            self._answered.discard(call.id)
            named.append(call if new_id == call.id else replace(call, id=new_id))
        return tuple(named)

    def _result(self, message: Message) -> None:
        call_id = message.tool_call_id
        if call_id in self._answered:
            return
        self._answered.add(call_id)
        sent_id = self._open.pop(call_id, None)
        text = message.content if message.content and not message.content.isspace() else NO_OUTPUT
        if sent_id is None:
            self._said.append(Message(Role.USER, LATE_RESULT.format(id=call_id, text=text)))
        elif sent_id == call_id and text == message.content:
            self._out.append(message)
        else:
            self._out.append(replace(message, content=text, tool_call_id=sent_id))

    def _close(self) -> None:
        for call_id in self._open.values():
            self._out.append(Message(Role.TOOL, NO_RESULT, tool_call_id=call_id))
        self._open.clear()
        for message in self._said:
            if shown := _shown(message):
                self._out.append(shown)
        self._said.clear()


def _with_calls_in_one(messages: Iterable[Message]) -> Iterable[Message]:
    """Yields messages, those of the assistant that follow each other as one if they have calls: some clients send the
    text of an answer and each of its calls apart, and the results come behind all of them.
    """
    said: list[Message] = []
    calls: set[str] = set()
    for message in messages:
        if message.role is not Role.ASSISTANT:
            if said:
                yield joined(said)
                said, calls = [], set()
            yield message
        elif message.tool_calls or _text(message):
            own = {call.id for call in message.tool_calls}
            if said and not ((calls or own) and calls.isdisjoint(own)):
                yield joined(said)
                said, calls = [], set()
            said.append(message)
            calls |= own
    if said:
        yield joined(said)


def _text(message: Message) -> str:
    text = message.content if message.content and not message.content.isspace() else message.refusal
    return "" if text.isspace() else text


def _shown(message: Message) -> Message | None:
    """Returns a user or system message without its empty parts; None if nothing remains."""
    if message.parts:
        parts = tuple(part for part in message.parts if not isinstance(part, TextPart) or part.text.strip())
        if len(parts) == len(message.parts):
            return message
        return replace(message, parts=parts) if parts else replace(message, parts=(), content=NO_TEXT)
    if message.content and not message.content.isspace():
        return message
    return replace(message, content=NO_TEXT) if message.role is Role.USER else None
