"""A stored response as its stream: from the journal of its turn, or from the turn once that has gone."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

from chat_gateway.http_edge.admin.completions.schema import outcome_of
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.http_edge.openai.responses.echo import echo_of
from chat_gateway.http_edge.openai.responses.events import ResponseEvents
from chat_gateway.http_edge.openai.responses.ids import TurnRef
from chat_gateway.http_edge.wire.sse import KEEP_ALIVE
from chat_gateway.model.answers import whole_delta
from chat_gateway.model.errors import ResponseNotFound
from chat_gateway.model.journal import CallRecorded, JournalEvent, StepCalled, TurnBegun
from chat_gateway.model.turn import Delta, TurnOutcome, TurnStarted
from contract.reasons import Reason
from parley.session.v1 import session_service_pb2 as pb
from servicekit.errors import ServiceError

Journal = AsyncGenerator[JournalEvent | None, None]


async def response_events(
    deps: Dependencies, project: str, turn: TurnRef, user_id: str, after: int
) -> AsyncIterator[bytes]:
    """Returns the events behind the one of this number, and those that come. Raises `ResponseNotFound`."""
    journal: Journal = deps.journals.watch(project, turn.session_id, user_id, turn.turn_id, "")
    reader = _Reader(deps, project, turn, user_id, after)
    try:
        first = await anext(journal)
    except ServiceError as error:
        if error.reason != Reason.TURN_NOT_FOUND:
            raise
        return reader.stored(await reader.read())
    return reader.journaled(first, journal)


class _Reader:
    def __init__(self, deps: Dependencies, project: str, turn: TurnRef, user_id: str, after: int) -> None:
        self._deps = deps
        self._project = project
        self._turn = turn
        self._user_id = user_id
        self._after = after
        self._events = ResponseEvents(echo_of(b"", ""), after=after)
        self._answered = False
        """Whether the journal has the pieces of the answer; that of a turn that is not resumable has its end only."""

    async def read(self) -> pb.GetTurnResponse:
        request = pb.GetTurnRequest(
            project=self._project,
            session_id=self._turn.session_id,
            turn_id=self._turn.turn_id,
            user_id=self._user_id,
        )
        try:
            return await self._deps.session_svc.call(self._deps.stubs.sessions.GetTurn, request)
        except ServiceError as error:
            gone = error.reason in (Reason.SESSION_NOT_FOUND, Reason.TURN_NOT_FOUND)
            raise ResponseNotFound(self._turn.response_id) if gone else error from None

    async def stored(self, found: pb.GetTurnResponse) -> AsyncIterator[bytes]:
        """What is left of an answer whose pieces nobody keeps any more is its end, which has all of it."""
        outcome = outcome_of(found.turn, found.session)
        echo = echo_of(outcome.notes, found.session.agent_id)
        if self._after >= 0:
            yield ResponseEvents(echo, first=self._after + 1).whole(outcome)
            return
        events = ResponseEvents(echo)
        yield events.start(_started(outcome))
        if len(outcome.said) > 1 or outcome.pending:
            yield events.whole(outcome)
        else:
            yield events.delta(whole_delta(outcome.message))
            yield events.finish(outcome)

    async def journaled(self, first: JournalEvent | None, journal: Journal) -> AsyncIterator[bytes]:
        """The journal is read from its begin: the number of an event is how many came before it."""
        async with contextlib.aclosing(journal):
            yield await self._event(first)
            async for one in journal:
                yield await self._event(one)

    async def _event(self, one: JournalEvent | None) -> bytes:
        if one is None:
            return KEEP_ALIVE
        entry = one.entry
        match entry:
            case TurnBegun():
                self._events = ResponseEvents(echo_of(entry.notes, entry.agent_id), after=self._after)
                turn = self._turn
                return self._events.start(
                    TurnStarted(
                        turn.turn_id,
                        turn.session_id,
                        entry.session_created,
                        None,
                        entry.agent_revision,
                        entry.begin_time,
                    )
                )
            case Delta():
                self._answered = True
                return self._events.delta(entry)
            case StepCalled():
                return b""
            case CallRecorded():
                return self._events.delta(Delta(activity=replace(entry.event, content=entry.content)))
            case TurnOutcome():
                found = await self.read()
                outcome = outcome_of(found.turn, found.session)
                return self._events.finish(outcome) if self._answered else self._events.whole(outcome)
            case ServiceError():
                return self._events.fail(entry)
        return self._events.delta(Delta(activity=entry))


def _started(outcome: TurnOutcome) -> TurnStarted:
    return TurnStarted(outcome.turn_id, outcome.session_id, False, None, outcome.agent_revision, outcome.begin_time)
