"""Stored responses: turns of sessions, by the ids that callers got."""

from typing import Annotated, Any, Literal

from litestar import Request, Response, Router, delete, get, post
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from access.binding import may_read_turns
from access.caller import CHAT, SESSIONS_ADMIN, SESSIONS_READ, current
from chat_gateway.convert.messages import turn_from_proto
from chat_gateway.http_edge.admin.completions.schema import outcome_of
from chat_gateway.http_edge.admin.reading import reading_user
from chat_gateway.http_edge.admin.responses.pages import INCLUDE, includes_of, page_of
from chat_gateway.http_edge.admin.responses.running import items_of_running
from chat_gateway.http_edge.admin.routing import Injected, Project, UserId
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.http_edge.openai.responses.answer import state_response, whole_response
from chat_gateway.http_edge.openai.responses.answer_schema import ItemList, ResponseDeleted
from chat_gateway.http_edge.openai.responses.answer_schema import Response as ResponseJson
from chat_gateway.http_edge.openai.responses.echo import RequestEcho, echo_of
from chat_gateway.http_edge.openai.responses.ids import TurnRef, parse_response_id
from chat_gateway.http_edge.openai.responses.journal_events import echo_of_running, response_events
from chat_gateway.http_edge.openai.responses.stored_items import input_items
from chat_gateway.http_edge.wire.auth import acting_user
from chat_gateway.model.background import TurnState, TurnStatus
from chat_gateway.model.errors import ResponseUnfinished
from chat_gateway.model.not_found import ResponseNotFound
from chat_gateway.model.provider_errors import FieldsUnsupported
from chat_gateway.model.turn import TurnOutcome
from contract.reasons import Reason
from parley.session.v1 import session_service_pb2 as pb
from servicekit.errors import InvalidArgument, ServiceError, Violation

After = Annotated[str, QueryParameter(description="The id of the last item of the page before.")]
Limit = Annotated[int, QueryParameter(ge=1, le=100, description="How many to return.")]
Order = Annotated[Literal["asc", "desc"], QueryParameter(description="Oldest or newest first.")]
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_GONE = (Reason.SESSION_NOT_FOUND, Reason.TURN_NOT_FOUND, Reason.INVALID_FIELD)


@get("/v1/responses/{response_id:str}", scope=CHAT, or_scope=SESSIONS_READ, lists=INCLUDE)
async def get_response(
    response_id: FromPath[str],
    deps: Injected,
    project: Project,
    request: Request[Any, Any, Any],
    include: Annotated[str | None, QueryParameter(description="What to show, as `include[]`.")] = None,
    stream: Annotated[bool, QueryParameter(description="As its events, what is there and what comes.")] = False,
    starting_after: Annotated[
        int | None, QueryParameter(ge=0, le=2**31 - 1, description="With `stream`: only events behind this number.")
    ] = None,
    include_obfuscation: Annotated[bool, QueryParameter(description="Must be false: events are not padded.")] = False,
    user: UserId = None,
) -> Response[ResponseJson]:
    """Reads a stored response. Those with `store: false`, and those whose session has ended, are not there.

    The stream of one that was asked for with `resumable` has the same events as when it was made. Of any other, and
    minutes after its end, what is left is its end, which has all of it.
    """
    if include_obfuscation:
        raise FieldsUnsupported([Violation("include_obfuscation", "is not supported: events are not padded")])
    if stream:
        includes_of(request, include)
        after = -1 if starting_after is None else starting_after
        user_id, turn = acting_user(user), turn_of(response_id)
        user_id = await reading_user(deps, project, turn.session_id, user_id)

        async def read() -> tuple[TurnOutcome, str]:
            found = await read_response(deps, project, response_id, user)
            return outcome_of(found.turn, found.session), found.session.agent_id

        events = await response_events(deps.journals, project, turn, user_id, read, after)
        streamed: Any = Stream(events, media_type="text/event-stream", headers=_HEADERS)
        return streamed  # type: ignore[no-any-return]
    if starting_after is not None:
        raise InvalidArgument([Violation("starting_after", "needs stream")])
    try:
        found = await read_response(deps, project, response_id, user)
    except ResponseNotFound as gone:
        user_id = await reading_user(deps, project, turn_of(response_id).session_id, acting_user(user))
        state = await _state(deps, project, response_id, user_id)
        if state is None:
            raise gone from None
        return Response(await _response_of(deps, project, state, user_id))
    outcome = outcome_of(found.turn, found.session)
    echo = echo_of(outcome.notes, found.session.agent_id)
    echo.include = sorted({*echo.include, *includes_of(request, include)})
    return Response(whole_response(outcome, echo))


@get("/v1/responses/{response_id:str}/input_items", scope=CHAT, or_scope=SESSIONS_READ, lists=INCLUDE)
async def list_response_input_items(
    response_id: FromPath[str],
    deps: Injected,
    project: Project,
    request: Request[Any, Any, Any],
    after: After = "",
    limit: Limit = 20,
    order: Order = "desc",
    include: Annotated[str | None, QueryParameter(description="What to show, as `include[]`.")] = None,
    user: UserId = None,
) -> ItemList:
    """Lists what a stored response answered: the items of its request, not those of responses before it."""
    includes_of(request, include)
    try:
        found = await read_response(deps, project, response_id, user)
        items = input_items(turn_from_proto(found.turn), found.session.id)
    except ResponseNotFound as gone:
        turn = turn_of(response_id)
        user_id = await reading_user(deps, project, turn.session_id, acting_user(user))
        running = await items_of_running(deps, project, turn, user_id)
        if running is None:
            raise gone from None
        items = running
    return page_of(items if order == "asc" else items[::-1], after, limit)


@delete("/v1/responses/{response_id:str}", status_code=200, scope=SESSIONS_ADMIN)
async def delete_response(
    response_id: FromPath[str], deps: Injected, project: Project, user: UserId = None
) -> ResponseDeleted:
    """Deletes a stored response with its items. It must be the last one of its conversation: later ones build on it."""
    user_id, turn = acting_user(user), turn_of(response_id)
    request = pb.DeleteTurnRequest(project=project, session_id=turn.session_id, turn_id=turn.turn_id, user_id=user_id)
    try:
        await deps.session_svc.call(deps.stubs.sessions.DeleteTurn, request)
    except ServiceError as error:
        if error.reason not in _GONE:
            raise
        state = await _state(deps, project, response_id, user_id)
        if state is not None and state.status in (TurnStatus.QUEUED, TurnStatus.RUNNING):
            raise ResponseUnfinished(response_id, turn.session_id) from None
        raise ResponseNotFound(response_id) from None
    return ResponseDeleted(id=response_id)


@post("/v1/responses/{response_id:str}/cancel", status_code=200, scope=CHAT)
async def cancel_response(
    response_id: FromPath[str], deps: Injected, project: Project, user: UserId = None
) -> ResponseJson:
    """Cancels a response that is queued or under way, and answers once it has ended, whatever ended it."""
    user_id, turn = acting_user(user), turn_of(response_id)
    if deps.background is None:
        raise ResponseNotFound(response_id)
    timeout = deps.settings.purge_timeout
    try:
        ended = await deps.background.cancel(project, turn.session_id, user_id, turn.turn_id, timeout)
    except ServiceError as error:
        raise ResponseNotFound(response_id) if error.reason in _GONE else error from None
    return await _response_of(deps, project, ended, user_id)


def responses_router() -> Router:
    """Returns the routes of this module."""
    return Router("/", route_handlers=[get_response, list_response_input_items, cancel_response, delete_response])


def turn_of(response_id: str) -> TurnRef:
    """Returns the turn of a response. Raises `ResponseNotFound` unless it is stored."""
    turn = parse_response_id(response_id)
    if turn is None or not turn.session_id:
        raise ResponseNotFound(response_id)
    return turn


async def read_response(deps: Dependencies, project: str, response_id: str, user: str | None) -> pb.GetTurnResponse:
    """Returns the turn of a response, and its session. Raises `ResponseNotFound`."""
    user_id, turn = acting_user(user), turn_of(response_id)
    request = pb.GetTurnRequest(project=project, session_id=turn.session_id, turn_id=turn.turn_id, user_id=user_id)
    try:
        found = await deps.session_svc.call(deps.stubs.sessions.GetTurn, request)
    except ServiceError as error:
        raise ResponseNotFound(response_id) if error.reason in _GONE else error from None
    if not may_read_turns(current(), user_id, found.session.user_id):
        raise ResponseNotFound(response_id)
    return found


async def _state(deps: Dependencies, project: str, response_id: str, user_id: str) -> TurnState | None:
    """Returns how far a response is that is not stored."""
    if deps.background is None:
        return None
    turn = turn_of(response_id)
    try:
        return await deps.background.state(project, turn.session_id, user_id, turn.turn_id)
    except ServiceError as error:
        if error.reason in _GONE:
            return None
        raise


async def _response_of(deps: Dependencies, project: str, state: TurnState, user_id: str) -> ResponseJson:
    if state.outcome is not None and state.outcome.notes:
        return state_response(state, echo_of(state.outcome.notes, state.agent_id))
    turn = TurnRef(state.turn_id, state.session_id)
    echo = await echo_of_running(deps.journals, project, turn, user_id)
    return state_response(state, echo or RequestEcho(model=state.agent_id))
