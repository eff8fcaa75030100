"""Puts a prompt together: instructions, window, new messages, with every tool call answered."""

from collections.abc import Iterable, Sequence
from itertools import chain

from chat_gateway.model.turn import Message, ToolCall
from contract.enums import Role

NO_RESULT = "No result: the caller went on without running this tool."


def prompt_messages(instructions: str, window: Sequence[Message], new: Sequence[Message]) -> list[Message]:
    """Returns what the model is sent, oldest first.

    Providers refuse a history in which a tool call has no result. A caller may go on without one (it crashed, the user
    changed the subject), so such calls get a result that says so; it is not stored.
    """
    head = [Message(Role.SYSTEM, instructions)] if instructions else []
    said: Iterable[Message] = chain(window, new)
    if any(message.tool_calls for message in window) or any(message.tool_calls for message in new):
        said = _with_every_call_answered(said)
    return [*head, *said]


def _with_every_call_answered(messages: Iterable[Message]) -> list[Message]:
    out: list[Message] = []
    open_calls: dict[str, ToolCall] = {}
    for message in messages:
        if message.role is Role.TOOL:
            open_calls.pop(message.tool_call_id, None)
        else:
            out += _no_results(open_calls)
            open_calls = {call.id: call for call in message.tool_calls}
        out.append(message)
    return out + _no_results(open_calls)


def _no_results(calls: dict[str, ToolCall]) -> list[Message]:
    return [Message(Role.TOOL, NO_RESULT, tool_call_id=call_id) for call_id in calls]
