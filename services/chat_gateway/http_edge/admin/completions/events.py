"""The events of a chat completion: any gateway continues the stream after an event."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

from litestar import Router, get
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from access.caller import CHAT, SESSIONS_READ
from chat_gateway.http_edge.admin.completions.routes import SessionId, ids_of, read_turn
from chat_gateway.http_edge.admin.completions.schema import outcome_of
from chat_gateway.http_edge.admin.reading import reading_user
from chat_gateway.http_edge.admin.routing import Injected, Project, UserId
from chat_gateway.http_edge.openai.chat.answer import CompletionChunks
from chat_gateway.http_edge.wire.auth import acting_user
from chat_gateway.http_edge.wire.errors import encode_error
from chat_gateway.http_edge.wire.sse import KEEP_ALIVE, event, with_id
from chat_gateway.model.answers import whole_delta
from chat_gateway.model.journal import CallRecorded, JournalEvent, StepCalled, TurnBegun, event_place
from chat_gateway.model.turn import Delta, TurnOutcome, TurnStarted
from contract.reasons import Reason
from servicekit.errors import InvalidArgument, ServiceError, Violation

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

Journal = AsyncGenerator[JournalEvent | None, None]


@get("/v1/chat/completions/{completion_id:str}/events", scope=CHAT, or_scope=SESSIONS_READ)
async def watch_chat_completion(
    completion_id: FromPath[str],
    deps: Injected,
    project: Project,
    after: Annotated[str, QueryParameter(description="Only what comes behind this event.")] = "",
    include_usage: Annotated[bool, QueryParameter(description="End with a chunk that has the usage.")] = False,
    last_event_id: Annotated[
        str | None, HeaderParameter(name="Last-Event-ID", description="As `after`, which wins.")
    ] = None,
    user: UserId = None,
    session: SessionId = None,
) -> Stream:
    """Streams a completion that was asked for with `resumable`, or calls tools: what is there, what comes, and its end.

    The events are the chunks of the stream itself, with ids. One that has ended gives what is left at once; minutes
    after its end the stored answer comes in one piece.
    """
    user_id = acting_user(user)
    place = event_place(after or last_event_id or "")
    if place is None:
        raise InvalidArgument([Violation("after", "must be the id of an event")])
    turn_id, session_id = ids_of(completion_id, session)
    user_id = await reading_user(deps, project, session_id, user_id)
    journal: Journal = deps.journals.watch(project, session_id, user_id, turn_id, "")
    try:
        first = await anext(journal)
    except ServiceError as error:
        if error.reason != Reason.TURN_NOT_FOUND:
            raise
        found = await read_turn(deps, project, completion_id, user, session)
        events = _whole(outcome_of(found.turn, found.session), found.session.agent_id, include_usage)
    else:
        events = _Chunks(turn_id, session_id, place, include_usage).of(first, journal)
    return Stream(events, media_type="text/event-stream", headers=_HEADERS)


def completion_events_router() -> Router:
    """Returns the route of this module."""
    return Router("/", route_handlers=[watch_chat_completion])


async def _whole(outcome: TurnOutcome, agent_id: str, include_usage: bool) -> AsyncIterator[bytes]:
    chunks = CompletionChunks(agent_id, include_usage=include_usage)
    begun = TurnBegun(agent_id, outcome.agent_revision, False, outcome.begin_time)
    yield chunks.start(_started(begun, outcome.turn_id, outcome.session_id))
    yield chunks.delta(whole_delta(outcome.message))
    yield chunks.finish(outcome)


class _Chunks:
    """A journal as the chunks that its caller would have got."""

    def __init__(self, turn_id: str, session_id: str, after: tuple[int, ...], include_usage: bool) -> None:
        self._turn_id = turn_id
        self._session_id = session_id
        self._after = after
        self._include_usage = include_usage
        self._chunks = CompletionChunks("", include_usage=include_usage)
        self._answered = False
        """Whether the journal has the pieces of the answer; that of a turn that is not resumable has the end only."""

    async def of(self, first: JournalEvent | None, journal: Journal) -> AsyncIterator[bytes]:
        """Yields the events behind `after`: the journal is read from its begin, which says what each chunk repeats.

        Where it can't be read on, an error is the last event.
        """
        async with contextlib.aclosing(journal):
            yield self._event(first)
            try:
                async for one in journal:
                    yield self._event(one)
            except ServiceError as error:
                yield event(encode_error(error))

    def _event(self, one: JournalEvent | None) -> bytes:
        if one is None:
            return KEEP_ALIVE
        data = self._chunk(one)
        return with_id(one.id, data) if data and (event_place(one.id) or ()) > self._after else b""

    def _chunk(self, one: JournalEvent) -> bytes:
        entry = one.entry
        match entry:
            case TurnBegun():
                self._chunks = CompletionChunks(entry.agent_id, include_usage=self._include_usage)
                return self._chunks.start(_started(entry, self._turn_id, self._session_id))
            case Delta():
                self._answered = True
                return self._chunks.delta(entry)
            case StepCalled():
                return b""
            case CallRecorded():
                return self._chunks.delta(Delta(activity=entry.event))
            case TurnOutcome():
                whole = b"" if self._answered else self._chunks.delta(whole_delta(entry.message))
                return whole + self._chunks.finish(entry)
            case ServiceError():
                return event(encode_error(entry))
        return self._chunks.delta(Delta(activity=entry))


def _started(begun: TurnBegun, turn_id: str, session_id: str) -> TurnStarted:
    return TurnStarted(turn_id, session_id, begun.session_created, None, begun.agent_revision, begun.begin_time)
