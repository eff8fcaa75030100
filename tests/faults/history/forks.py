"""Judges forks: each begins with whole turns of its source, from the first on, and goes on by itself. Pure."""

from collections.abc import Iterator, Sequence

from tests.faults.history.lifetimes import Finding
from tests.faults.history.records import Ending, Fork, History, Message


class Forks:
    """What a history tells of its forks."""

    def __init__(self, history: History) -> None:
        self._forks = {fork.id: fork for fork in history.forks}
        self._stored = history.stored
        self._sender = {text: operation for operation in history.operations for text in operation.texts}
        self._called = {call.answer: call.at for call in history.calls}

    def origins(self, session: str) -> set[str]:
        """Return the sessions whose turns may stand in this one: itself, its source, the source of that."""
        found = {session}
        while session in self._forks:
            session = self._forks[session].source
            found.add(session)
        return found

    def wrong(self) -> Iterator[Finding]:
        """Find forks that are not beginnings of their sources, or not as long as they were said to be."""
        for fork in self._forks.values():
            stored, source = self._stored.get(fork.id, []), self._stored.get(fork.source, [])
            copied = self._copied(fork)
            turns = _turns(copied)
            if fork.ending is Ending.REFUSED and stored:
                yield fork.id, "was refused and is there"
            if copied != source[: len(copied)] or (copied and copied[-1].role != "assistant"):
                yield fork.id, f"{[message.text for message in copied]} are not the first turns of {fork.source}"
            elif fork.ending is Ending.ACKNOWLEDGED and turns != fork.turns:
                yield fork.id, f"has {turns} turns of {fork.source}, acknowledged were {fork.turns}"
            elif fork.up_to and turns not in (0, fork.up_to):
                yield fork.id, f"has {turns} turns of {fork.source}, asked for were {fork.up_to}"
            elif late := [m.text for m in copied if self._called.get(m.text, 0.0) > fork.ended]:
                yield fork.id, f"has {late} of {fork.source}, which were made later"
            elif not fork.up_to and fork.ending is Ending.ACKNOWLEDGED and turns < (least := self._least(fork)):
                yield fork.id, f"has {turns} turns of {fork.source}, which had {least} before"
            if any(self._is_foreign(fork, message) for message in stored[len(copied) :]):
                yield fork.id, f"has turns of {fork.source} behind its own"

    def _copied(self, fork: Fork) -> Sequence[Message]:
        stored = self._stored.get(fork.id, [])
        own = (n for n, m in enumerate(stored) if m.text in self._sender and not self._is_foreign(fork, m))
        return stored[: next(own, len(stored))]

    def _is_foreign(self, fork: Fork, message: Message) -> bool:
        return message.text in self._sender and self._sender[message.text].session != fork.id

    def _least(self, fork: Fork) -> int:
        """Return how many turns the source had for certain when the fork began."""
        source = self._stored.get(fork.source, [])
        known = 0
        for place, message in enumerate(source):
            done = self._sender[message.text].acknowledgement if message.text in self._sender else None
            # The turns of a source's own source were there before itself.
            inherited = message.text in self._sender and self._sender[message.text].session != fork.source
            if inherited or (done is not None and done.ended < fork.began):
                known = _turns(source[: place + 1]) + 1
        return known


def _turns(messages: Sequence[Message]) -> int:
    return sum(message.role == "assistant" for message in messages)
