"""Histories for strict providers: instructions separate or first, every result directly after its call."""

from collections.abc import Sequence
from typing import Final

from chat_gateway.model.turn import Extra, Message, ToolCall
from contract.enums import Role
from servicekit.values import value

_BETWEEN_SYSTEM: Final = "\n\n"
NO_RESULT: Final = "No result: the caller went on without running this tool."


@value
class Result:
    """A call with its result; None where the history has none."""

    call: ToolCall
    message: Message | None


@value
class Utterance:
    """What one side says at once: a message of the user or the model, or the results of the model's calls, in order."""

    message: Message | None = None
    results: tuple[Result, ...] = ()

    @property
    def by_model(self) -> bool:
        """Whether the model said it."""
        return self.message is not None and self.message.role is Role.ASSISTANT


def pair(messages: Sequence[Message]) -> tuple[list[Message], list[Utterance]]:
    """Returns the system messages, and everything else with each result right after its call.

    A result without a call becomes a text of the user, so that nothing that was said is lost.
    """
    system = [message for message in messages if message.role is Role.SYSTEM and message_text(message).strip()]
    out: list[Utterance] = []
    calls: tuple[ToolCall, ...] = ()
    results: dict[str, Message] = {}
    waiting: list[Utterance] = []

    def close() -> None:
        nonlocal calls
        if calls:
            out.append(Utterance(results=tuple(Result(call, results.get(call.id)) for call in calls)))
        out.extend(waiting)
        waiting.clear()
        results.clear()
        calls = ()

    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        if message.role is Role.TOOL:
            if message.tool_call_id in {call.id for call in calls} and message.tool_call_id not in results:
                results[message.tool_call_id] = message
            else:
                waiting.append(Utterance(_orphan(message)))
        elif message.role is Role.ASSISTANT:
            close()
            out.append(Utterance(message))
            calls = message.tool_calls
        else:
            waiting.append(Utterance(message))
    close()
    return system, out


def one_system_message(messages: Sequence[Message]) -> list[Message]:
    """Returns the prompt with all its system messages as one at its head, for models whose template takes no other."""
    system = [message for message in messages if message.role is Role.SYSTEM]
    if not system or (len(system) == 1 and messages[0].role is Role.SYSTEM):
        return list(messages)
    rest = [message for message in messages if message.role is not Role.SYSTEM]
    text = _BETWEEN_SYSTEM.join([message.content for message in system])
    return [Message(Role.SYSTEM, text, extra=_joined_extra(system)), *rest]


def _joined_extra(system: Sequence[Message]) -> Extra | None:
    """Returns what callers say beyond the texts of several messages, each beside its own text."""
    if not any(message.extra for message in system):
        return None
    texts: list[tuple[str, Extra | None]] = []
    for number, message in enumerate(system):
        own = list((message.extra and message.extra.texts) or ((message.content, None),))
        own[-1] = (own[-1][0], own[-1][1] or message.extra)
        if number:
            own[0] = (_BETWEEN_SYSTEM + own[0][0], own[0][1])
        texts += own
    return Extra(texts=tuple(texts))


def message_text(message: Message) -> str:
    """Returns the text of a message, without its pictures; of a refusal, what it says."""
    if not message.parts:
        return message.content or message.refusal
    return "\n".join(text for part in message.parts if (text := getattr(part, "text", "")))


def _orphan(message: Message) -> Message:
    return Message(Role.USER, f"[Result of a tool, {message.tool_call_id}]: {message_text(message)}", message.parts[:0])
