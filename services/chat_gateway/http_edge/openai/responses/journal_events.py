"""A response as its stream: from the journal of its turn, or from the turn once that has gone."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace

from chat_gateway.clients.journal_client import JournalClient
from chat_gateway.http_edge.openai.responses.echo import RequestEcho, echo_of
from chat_gateway.http_edge.openai.responses.events import ResponseEvents
from chat_gateway.http_edge.openai.responses.ids import TurnRef
from chat_gateway.http_edge.wire.sse import KEEP_ALIVE
from chat_gateway.model.journal import CallRecorded, JournalEvent, StepCalled, TurnBegun
from chat_gateway.model.turn import Delta, TurnOutcome, TurnStarted
from contract.reasons import Reason
from servicekit.errors import ServiceError

Journal = AsyncGenerator[JournalEvent | None, None]
ReadStored = Callable[[], Awaitable[tuple[TurnOutcome, str]]]
"""Returns how a turn ended that is stored, and the id of its agent."""


async def response_events(
    journals: JournalClient, project: str, turn: TurnRef, user_id: str, read: ReadStored, after: int = -1
) -> AsyncIterator[bytes]:
    """Returns the events behind the one of this number, and those that come. Raises what `read` raises."""
    journal: Journal = journals.watch(project, turn.session_id, user_id, turn.turn_id, "")
    reader = _Reader(turn, read, after)
    try:
        first = await anext(journal)
    except ServiceError as error:
        if error.reason != Reason.TURN_NOT_FOUND:
            raise
        return reader.stored(*await read())
    return reader.journaled(first, journal)


async def echo_of_running(journals: JournalClient, project: str, turn: TurnRef, user_id: str) -> RequestEcho | None:
    """Returns what a turn that runs was asked for; None where it keeps no journal."""
    journal: Journal = journals.watch(project, turn.session_id, user_id, turn.turn_id, "")
    try:
        async with contextlib.aclosing(journal):
            async for one in journal:
                if one is not None and isinstance(one.entry, TurnBegun):
                    return echo_of(one.entry.notes, one.entry.agent_id)
    except ServiceError as error:
        if error.reason != Reason.TURN_NOT_FOUND:
            raise
    return None


class _Reader:
    def __init__(self, turn: TurnRef, read: ReadStored, after: int) -> None:
        self._turn = turn
        self._read = read
        self._after = after
        self._events = ResponseEvents(RequestEcho(), after=after)
        self._answered = False
        """Whether the journal has the pieces of the answer; that of a turn that is not resumable has its end only."""

    async def stored(self, outcome: TurnOutcome, agent_id: str) -> AsyncIterator[bytes]:
        """Of an answer whose pieces are no longer kept, only the end is left, which has all of it."""
        echo = echo_of(outcome.notes, agent_id)
        if self._after >= 0:
            echo.background = False
            yield ResponseEvents(echo, first=self._after + 1).whole(outcome)
            return
        events = ResponseEvents(echo)
        yield events.start(_started(self._turn, TurnBegun(agent_id, outcome.agent_revision, False, outcome.begin_time)))
        yield events.again(outcome)

    async def journaled(self, first: JournalEvent | None, journal: Journal) -> AsyncIterator[bytes]:
        """The journal is read from its begin: the number of an event is how many came before it.

        Where it can't be read on, an error is the last event.
        """
        async with contextlib.aclosing(journal):
            yield await self._event(first)
            try:
                async for one in journal:
                    yield await self._event(one)
            except ServiceError as error:
                yield self._events.interrupt(error)

    async def _event(self, one: JournalEvent | None) -> bytes:
        if one is None:
            return KEEP_ALIVE
        entry = one.entry
        match entry:
            case TurnBegun():
                self._events = ResponseEvents(echo_of(entry.notes, entry.agent_id), after=self._after)
                return self._events.start(_started(self._turn, entry))
            case Delta():
                self._answered = True
                return self._events.delta(entry)
            case StepCalled():
                return b""
            case CallRecorded():
                return self._events.delta(Delta(activity=replace(entry.event, content=entry.content)))
            case TurnOutcome():
                outcome, _ = await self._read()
                return self._events.finish(outcome) if self._answered else self._events.whole(outcome)
            case ServiceError():
                return self._events.fail(entry)
        return self._events.delta(Delta(activity=entry))


def _started(turn: TurnRef, begun: TurnBegun) -> TurnStarted:
    return TurnStarted(
        turn.turn_id, turn.session_id, begun.session_created, None, begun.agent_revision, begun.begin_time
    )
