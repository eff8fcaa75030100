"""Matches results of tool calls with their calls."""

from collections.abc import Iterable, Sequence, Set
from itertools import takewhile

from chat_gateway.model.turn import Message
from contract.enums import Role
from servicekit.errors import Violations

UNKNOWN_RESULT = "must be the id of a tool call that has no result yet"


def open_calls(messages: Iterable[Message]) -> set[str]:
    """Returns the ids of the tool calls that have no result."""
    found: set[str] = set()
    for message in messages:
        if message.role is Role.TOOL:
            found.discard(message.tool_call_id)
        elif message.tool_calls:
            found.update(call.id for call in message.tool_calls)
    return found


def continues(messages: Iterable[Message]) -> bool:
    """Whether the messages have results of tool calls that are not among them."""
    for message in messages:
        if message.role is Role.TOOL:
            return True
        if message.role is Role.ASSISTANT:
            return False
    return False


def whole_turns(
    newest_first: Sequence[tuple[Message, ...]], limit: int, goes_on: bool, counts: Sequence[int] | None = None
) -> tuple[Message, ...]:
    """Returns the window as BeginTurn returns it. `goes_on`: the unfinished chain of tool calls is included completely.
    `counts`: how many messages each turn counts as; by default those that it has.
    """
    kept: list[tuple[Message, ...]] = []
    for turn, count in zip(newest_first, map(len, newest_first) if counts is None else counts, strict=True):
        if count > limit and not goes_on:
            break
        limit -= count
        kept.append(turn)
        goes_on = goes_on and continues(turn)
    # Of a chain longer than the window, the task and the newest steps are kept; results whose calls are outside the
    # window become text in the prompt.
    if kept and continues(kept[-1]):
        head = next((turn for turn in newest_first[len(kept) :] if not continues(turn)), ())
        kept.append(task_of(head))
    return tuple(message for turn in reversed(kept) for message in turn)


def task_of(turn: tuple[Message, ...]) -> tuple[Message, ...]:
    """Returns the messages of a turn before its agent's."""
    return tuple(takewhile(lambda message: message.role is not Role.ASSISTANT, turn))


def check_results(messages: Sequence[Message], known: Set[str] | None, found: Violations, first: int = 0) -> None:
    """Notes each result whose call does not wait for one; `known` are the calls before these messages that do.

    None: they are not known yet, and every result before an assistant speaks may be theirs. `first` is the place that
    the first message had in the request.
    """
    waiting = set(known or ())
    before = known is None
    answered: set[str] = set()
    for index, message in enumerate(messages, first):
        if message.role is Role.ASSISTANT:
            before = False
            waiting.update(call.id for call in message.tool_calls)
        elif message.role is Role.TOOL and message.tool_call_id:
            if message.tool_call_id in waiting:
                waiting.discard(message.tool_call_id)
            elif not before or message.tool_call_id in answered:
                found.add(f"messages[{index}].tool_call_id", UNKNOWN_RESULT)
            answered.add(message.tool_call_id)


def check_results_of_session(messages: Sequence[Message], window: Iterable[Message], first: int = 0) -> None:
    """Raises `InvalidArgument` with each result whose call does not wait for one in the session."""
    found = Violations()
    check_results(messages, open_calls(window), found, first)
    found.check()
