"""Compares a caller's transcript with the history of its session."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, dropwhile, takewhile
from typing import Protocol

from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.comparison import compare, is_calls_alone
from chat_gateway.model.errors import HistoryMismatch
from chat_gateway.model.history import EMPTY, end_of_history, grown
from chat_gateway.model.pairing import continues, whole_turns
from chat_gateway.model.stored_turn import Begun, Turn
from chat_gateway.model.tools import ToolOutcome
from chat_gateway.model.turn import Message, ToolCall, TurnRequest
from contract.enums import HistoryPolicy, Role
from servicekit.values import value


@value
class NewOfTranscript:
    """A turn whose request is a transcript, as one that brings only what is new.

    `first` is the place where that begins in the request; the turns behind `cut_after` go when the turn is committed.
    """

    request: TurnRequest
    begun: Begun
    first: int
    cut_after: int | None = None


_NOT_MADE = (ToolOutcome.DENIED, ToolOutcome.INVALID_ARGUMENTS)


class Histories(Protocol):
    """Reads the history of a session."""

    async def history(
        self, begun: Begun, request: TurnRequest, config: AgentConfig, digest: bytes
    ) -> tuple[Turn, ...] | None:
        """Returns every turn, oldest first; None if there are too many to compare."""
        ...


async def new_of_transcript(
    sessions: Histories, request: TurnRequest, begun: Begun, config: AgentConfig, digest: bytes
) -> NewOfTranscript:
    """Returns the messages that the transcript adds to the history. Raises `HistoryMismatch`. If the transcript
    replaces the history, the result continues from the last turn on which both agree.
    """
    end = end_of_history(request.messages, begun.history_digest) if begun.history_digest else None
    if end is not None and _is_sure(request, end):
        return _new(request, begun, end)
    turns = await sessions.history(begun, request, config, digest)
    if turns is None:
        raise HistoryMismatch(begun.session_id, 0, ends=False)
    resent, differs = compare(request.messages, turns)
    whole = resent.last_turn == (turns[-1].number if turns else 0)
    nothing_new = resent.first == len(request.messages) and not request.approvals
    if nothing_new or not (whole or request.history is HistoryPolicy.REPLACE):
        raise HistoryMismatch(begun.session_id, differs, ends=differs == len(request.messages))
    begun = replace(begun, history_digest=grown(EMPTY, request.messages[: resent.first]))
    if whole:
        return _new(request, begun, resent.first)
    kept = [one for one in turns if one.number <= resent.last_turn]
    goes_on = continues(request.messages[resent.first :])
    window = whole_turns([one.messages for one in kept[::-1]], config.window_messages, goes_on)
    begun = replace(
        begun,
        window=window,
        awaiting=kept[-1].awaiting if kept else (),
        handed_to=kept[-1].handed_to if kept else (),
        awaiting_servers={run.call_id: run.server for run in kept[-1].runs} if kept else {},
        begun_calls=(*begun.begun_calls, *chain.from_iterable(map(_early_calls, turns[len(kept) :]))),
    )
    return _new(request, begun, resent.first, resent.last_turn)


def _early_calls(turn: Turn) -> list[str]:
    """Returns which calls of the turn before it, where they waited for approvals, a turn made."""
    return [run.call_id for run in turn.runs if run.name and run.outcome not in _NOT_MADE]


def _is_sure(request: TurnRequest, end: int) -> bool:
    """Whether the messages from this place on are new: digests do not cover all fields of assistants' messages."""
    if end == len(request.messages):
        return bool(request.approvals)
    return request.messages[end].role is not Role.ASSISTANT


def _new(request: TurnRequest, begun: Begun, first: int, cut_after: int | None = None) -> NewOfTranscript:
    own = _without_calls_again(request.messages[first:], begun.window)
    own = _with_ids_of_session(own, request.messages[:first], begun.window)
    new = replace(request, messages=own)
    return NewOfTranscript(new, _with_system(begun, request, first), first, cut_after)


def _without_calls_again(new: Sequence[Message], window: Sequence[Message]) -> Sequence[Message]:
    """Returns the new messages without the calls that wait for their results: some clients write each call of an answer
    as an answer of its own, with its result behind it.
    """
    if not new or new[0].role is not Role.TOOL or not any(map(is_calls_alone, new)):
        return new
    waiting = {(call.id, call.name) for call in _last_calls(window)}
    return [
        one
        for one in new
        if not (is_calls_alone(one) and waiting.issuperset((call.id, call.name) for call in one.tool_calls))
    ]


def _with_ids_of_session(
    new: Sequence[Message], resent: Sequence[Message], window: Sequence[Message]
) -> tuple[Message, ...]:
    """Returns the new messages, with results under the session's ids of calls: some clients make ids of their own."""
    results = tuple(takewhile(lambda message: message.role is not Role.ASSISTANT, new))
    theirs, ours = _last_calls(resent), _last_calls(window)
    if [call.name for call in theirs] != [call.name for call in ours]:
        return tuple(new)
    ids = {one.id: other.id for one, other in zip(theirs, ours, strict=True) if one.id != other.id}
    if not ids.keys() - {call.id for call in ours}:
        return tuple(new)
    named = [replace(one, tool_call_id=ids.get(one.tool_call_id, one.tool_call_id)) for one in results]
    return (*named, *new[len(results) :])


def _last_calls(messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    answers: list[tuple[ToolCall, ...]] = []
    for message in reversed(messages):
        if message.role is Role.ASSISTANT and message.tool_calls:
            answers.append(message.tool_calls)
        elif message.role is not Role.ASSISTANT and answers:
            break
    return tuple(chain.from_iterable(reversed(answers)))


def _with_system(begun: Begun, request: TurnRequest, first: int) -> Begun:
    # The caller's own instructions are those of now, also where the turn that brought them first has left the window.
    system = tuple(takewhile(lambda message: message.role is Role.SYSTEM, request.messages))
    if not system or first < len(system):
        return begun
    texts = {message.content for message in system}
    window = dropwhile(lambda message: message.role is Role.SYSTEM, begun.window)
    rest = [message for message in window if message.role is not Role.SYSTEM or message.content not in texts]
    return replace(begun, window=(*system, *rest))
