"""The caller's view of a turn: one answer, with the calls that the caller has to run."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from chat_gateway.model.stored_turn import Turn
from chat_gateway.model.tools import PendingApproval
from chat_gateway.model.turn import Delta, Message, ToolCall, ToolCallDelta
from contract.enums import Role

STEP_BREAK = "\n\n"
"""Between the texts of two steps."""


def visible(messages: Sequence[Message], awaiting: Collection[str] = ()) -> Message:
    """Returns the agent's messages of one turn as the single message that the caller sees: the texts of all steps, and
    the calls of the last step that have no result and are not `awaiting` approval, which the caller has to run.
    """
    if len(messages) == 1 and not awaiting:
        return messages[0]
    if not messages:  # the other messages contain the turn's content
        return Message(Role.ASSISTANT)
    said = [message for message in messages if message.role is Role.ASSISTANT]
    return replace(
        said[-1],
        content=_joined([message.content for message in said]),
        refusal=_joined([message.refusal for message in said]),
        reasoning=_joined([message.reasoning for message in said]),
        tool_calls=tuple(call for call in open_calls(messages) if call.id not in awaiting),
    )


def joined(said: Sequence[Message]) -> Message:
    """Returns one message of the assistant's that was written as several, such as its text and its tool calls."""
    if len(said) == 1:
        return said[0]
    return replace(
        said[-1],
        content=_joined([message.content for message in said]),
        refusal=_joined([message.refusal for message in said]),
        reasoning=_joined([message.reasoning for message in said]),
        tool_calls=tuple([call for message in said for call in message.tool_calls]),
        provider_data=next((one.provider_data for one in reversed(said) if one.provider_data), said[-1].provider_data),
        extra=next((one.extra for one in reversed(said) if one.extra), said[-1].extra),
    )


def in_one(messages: Iterable[Message]) -> Iterator[Message]:
    """Yields the messages, those of the assistant that follow each other as one."""
    said: list[Message] = []
    for message in messages:
        if message.role is Role.ASSISTANT:
            said.append(message)
            continue
        if said:
            yield joined(said)
            said = []
        yield message
    if said:
        yield joined(said)


def agents_part(turn: Turn) -> tuple[Message, ...]:
    """Returns the agent's messages of a stored turn."""
    return turn.messages[-1:] if turn.answer_start is None else turn.messages[turn.answer_start :]


def said_in(turn: Turn) -> tuple[Message, ...]:
    """Returns the messages of a stored turn as its caller sees them."""
    if turn.answer_start is None:
        return turn.messages
    return (*turn.messages[: turn.answer_start], visible(agents_part(turn), turn.awaiting))


def open_calls(messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """Returns the calls without results at the end of the messages; none if other messages follow."""
    answered: set[str] = set()
    for message in reversed(messages):
        if message.role is Role.TOOL:
            answered.add(message.tool_call_id)
        elif message.role is Role.ASSISTANT:
            return tuple(call for call in message.tool_calls if call.id not in answered)
        else:
            break
    return ()


def pending_approvals(messages: Sequence[Message], awaiting: Collection[str]) -> tuple[PendingApproval, ...]:
    """Returns the calls at the end of the messages that wait for approval."""
    if not awaiting:
        return ()
    return tuple(
        PendingApproval(call.id, call.name, call.arguments) for call in open_calls(messages) if call.id in awaiting
    )


def _joined(texts: Sequence[str]) -> str:
    return STEP_BREAK.join(text for text in texts if text)


def whole_delta(message: Message) -> Delta:
    """Returns a whole answer as one piece."""
    calls = tuple(
        ToolCallDelta(index, call.id, call.name, call.arguments, call.provider_data)
        for index, call in enumerate(message.tool_calls)
    )
    return Delta(message.content, calls, message.refusal, message.reasoning, message.provider_data)
