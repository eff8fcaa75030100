"""Compares a caller's transcript with a session's history, where digests do not show that they agree.

What clients leave out of an answer with tool calls is no contradiction: its text, calls that they do not run, and that
several calls were of one answer.
"""

from collections import Counter
from collections.abc import Sequence

from chat_gateway.model.answers import in_one, joined, said_in
from chat_gateway.model.history import MAX_PIECES, canonical, canonical_arguments
from chat_gateway.model.stored_turn import Turn
from chat_gateway.model.turn import Message, ToolCall
from contract.enums import Role
from servicekit.values import value


@value
class Resent:
    """The part of a transcript that is not in the history: its messages from index `first` on.

    `last_turn` is the last turn that is kept.
    """

    first: int
    last_turn: int


def compare(messages: Sequence[Message], turns: Sequence[Turn]) -> tuple[Resent, int]:
    """Returns the part of a transcript after the turns with which it agrees, and the index of the first message that
    differs. If the transcript ends before the history, this is one after its last message.
    """
    transcript = _Transcript(messages)
    kept, number = 0, 0
    for turn in turns:
        if not all(map(transcript.has, in_one(said_in(turn)))):
            return Resent(kept, number), transcript.next
        number = turn.number
        kept = transcript.taken or kept
    return Resent(kept, number), transcript.next


class _Transcript:
    """The messages of a transcript that have content, up to the place that was compared."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = [one for one in enumerate(messages) if canonical(one[1])]
        self._end = len(messages)
        self._place = 0
        self._begun = False
        self._left_out: Counter[tuple[str, str]] = Counter()
        """The calls of the last answer that the transcript did not have yet."""

    @property
    def taken(self) -> int:
        """One after the last message that was compared; 0 for none."""
        return self._messages[self._place - 1][0] + 1 if self._place else 0

    @property
    def next(self) -> int:
        """The message that is compared next."""
        return self._messages[self._place][0] if self._place < len(self._messages) else self._end

    def has(self, message: Message) -> bool:
        """Returns whether the next messages are this one of the history, and goes on behind them if so."""
        form = canonical(message)
        if not form and message.refusal:
            self._place += self._is(canonical(Message(message.role, message.refusal)))
        if not form or (message.role is Role.SYSTEM and not self._begun):
            return True
        while not self._begun and (one := self._at(self._place)) is not None and one.role is Role.SYSTEM:
            self._place += 1
        self._begun = True
        if message.role is Role.TOOL:
            self._pass_calls_again()
        end = self._end_of(message, form)
        self._place = end or self._place
        return end is not None

    def _at(self, place: int) -> Message | None:
        return self._messages[place][1] if place < len(self._messages) else None

    def _is(self, form: bytes) -> bool:
        one = self._at(self._place)
        return one is not None and canonical(one) == form

    def _end_of(self, message: Message, form: bytes) -> int | None:
        """Returns the place behind those messages that together are this one; None if none are."""
        if self._is(form):
            return self._place + 1
        if message.role is not Role.ASSISTANT:
            return None
        end: int | None = None
        said: list[Message] = []
        left = Counter(map(_form, message.tool_calls))
        for place, (_, one) in enumerate(self._messages[self._place : self._place + MAX_PIECES], self._place):
            calls = Counter(map(_form, one.tool_calls))
            if one.role is not Role.ASSISTANT or not calls <= left:
                break
            left -= calls
            said.append(one)
            whole = joined(said)
            if canonical(whole) == form:
                return place + 1
            if whole.tool_calls and _has_no_other_text(whole, message):
                self._left_out, end = left, place + 1
        return end

    def _pass_calls_again(self) -> None:
        """Goes on behind calls of the last answer that the transcript has as another answer, behind a first result."""
        while self._left_out and (one := self._at(self._place)) is not None and is_calls_alone(one):
            calls = Counter(map(_form, one.tool_calls))
            if not calls <= self._left_out:
                return
            self._left_out -= calls
            self._place += 1


def is_calls_alone(message: Message) -> bool:
    """Whether a message is an answer that has calls and no text."""
    return message.role is Role.ASSISTANT and bool(message.tool_calls) and not message.content.strip()


def _has_no_other_text(theirs: Message, stored: Message) -> bool:
    text = theirs.content.strip()
    return not text or canonical(Message(Role.ASSISTANT, text)) == canonical(Message(Role.ASSISTANT, stored.content))


def _form(call: ToolCall) -> tuple[str, str]:
    return call.name, canonical_arguments(call.arguments)
