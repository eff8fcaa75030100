"""OpenAI's stored chat completions: the answers of sessions' turns, by the ids that callers got."""

import asyncio
from typing import Annotated, Any, Literal

from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from access.binding import may_read_turns
from access.caller import CHAT, SESSIONS_ADMIN, SESSIONS_READ, current
from chat_gateway.http_edge.admin.completions.listing import CompletionQuery, Listing
from chat_gateway.http_edge.admin.completions.schema import (
    CompletionDeleted,
    CompletionList,
    CompletionPatch,
    MessageList,
    StoredCompletion,
    state_of_completion,
    stored_completion,
    stored_messages,
)
from chat_gateway.http_edge.admin.reading import reading_user
from chat_gateway.http_edge.admin.routing import VERB, Injected, Project, UserId
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.http_edge.openai.chat.ids import parse_completion_id
from chat_gateway.http_edge.wire.auth import acting_user
from chat_gateway.model.not_found import CompletionNotFound
from contract.fields import is_resource_id
from contract.reasons import Reason
from parley.session.v1 import session_service_pb2 as pb
from servicekit.errors import DeadlineExceeded, InvalidArgument, ServiceError, Violation

Limit = Annotated[int, QueryParameter(ge=1, le=100, description="How many to return.")]
Order = Annotated[Literal["asc", "desc"], QueryParameter(description="Oldest or newest first.")]
SessionId = Annotated[
    str | None,
    HeaderParameter(
        name="X-Session-ID",
        description="The session of a completion whose id names none: an earlier release's.",
    ),
]
_GONE = (Reason.SESSION_NOT_FOUND, Reason.TURN_NOT_FOUND, Reason.INVALID_FIELD)


@get("/v1/chat/completions", scope=SESSIONS_READ, maps=("metadata",))
async def list_chat_completions(
    deps: Injected,
    project: Project,
    request: Request[Any, Any, Any],
    after: Annotated[str, QueryParameter(description="The id of the last completion of the page before.")] = "",
    limit: Limit = 20,
    order: Order = "asc",
    model: Annotated[str, QueryParameter(description="Only completions of this agent.")] = "",
    metadata: Annotated[
        str | None, QueryParameter(description="Only completions with these metadata, as `metadata[key]=value`.")
    ] = None,
    user: UserId = None,
) -> CompletionList:
    """Lists stored completions by the time at which they were begun. Sessions that have ended have none."""
    if metadata is not None:
        raise InvalidArgument([Violation("metadata", "must be given as metadata[key]=value")])
    if model and not is_resource_id(model):
        return CompletionList(data=[], has_more=False)
    query = CompletionQuery(project, acting_user(user), model, _pairs(request), limit, order == "desc")
    listing = Listing(deps, query)
    try:
        async with asyncio.timeout(deps.settings.rpc_timeout):
            place = None
            if after:
                turn = await read_turn(deps, project, after, user)
                place = listing.place(turn.turn, turn.session)
            found, more = await listing.page(place)
    except TimeoutError:
        raise DeadlineExceeded("the list takes too long: name a model, a user or metadata", bound="list") from None
    data = [stored_completion(turn, session) for turn, session in found]
    return CompletionList(
        data=data, has_more=more, first_id=data[0].id if data else None, last_id=data[-1].id if data else None
    )


@get("/v1/chat/completions/{completion_id:str}", scope=CHAT, or_scope=SESSIONS_READ)
async def get_chat_completion(
    completion_id: FromPath[str], deps: Injected, project: Project, user: UserId = None, session: SessionId = None
) -> StoredCompletion:
    """Reads a completion: a stored one, or how far one is that runs, or has failed minutes ago.

    Those with `store: false`, and those whose session has ended, are not there.
    """
    try:
        found = await read_turn(deps, project, completion_id, user, session)
    except CompletionNotFound as gone:
        state = await _state(deps, project, completion_id, user, session)
        if state is None:
            raise gone from None
        return state
    return stored_completion(found.turn, found.session)


@post(f"/v1/chat/completions/{{completion_id:str}}/{VERB}cancel", status_code=200, scope=CHAT)
async def cancel_chat_completion(
    completion_id: FromPath[str], deps: Injected, project: Project, user: UserId = None, session: SessionId = None
) -> StoredCompletion:
    """Cancels a completion that is queued or under way, and answers once it has ended, whatever ended it."""
    user_id = acting_user(user)
    turn_id, session_id = ids_of(completion_id, session)
    if deps.background is None:
        raise CompletionNotFound(completion_id)
    timeout = deps.settings.purge_timeout
    try:
        ended = await deps.background.cancel(project, session_id, user_id, turn_id, timeout)
    except ServiceError as error:
        raise CompletionNotFound(completion_id) if error.reason in _GONE else error from None
    return state_of_completion(ended)


@get("/v1/chat/completions/{completion_id:str}/messages", scope=CHAT, or_scope=SESSIONS_READ)
async def list_chat_completion_messages(
    completion_id: FromPath[str],
    deps: Injected,
    project: Project,
    after: Annotated[str, QueryParameter(description="The id of the last message of the page before.")] = "",
    limit: Limit = 20,
    order: Order = "asc",
    user: UserId = None,
    session: SessionId = None,
) -> MessageList:
    """Lists the messages that a stored completion answered: those of its turn, not those of turns before it."""
    found = await read_turn(deps, project, completion_id, user, session)
    messages = stored_messages(found.turn, found.session)
    if order == "desc":
        messages.reverse()
    if after:
        ids = [message.id for message in messages]
        if after not in ids:
            raise InvalidArgument([Violation("after", "must be the id of a message of the completion")])
        messages = messages[ids.index(after) + 1 :]
    data = messages[:limit]
    return MessageList(
        data=data,
        has_more=len(messages) > limit,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@post("/v1/chat/completions/{completion_id:str}", status_code=200, scope=SESSIONS_ADMIN)
async def update_chat_completion(
    completion_id: FromPath[str],
    data: JSONBody[CompletionPatch],
    deps: Injected,
    project: Project,
    user: UserId = None,
    session: SessionId = None,
) -> StoredCompletion:
    """Replaces the metadata, which are those of the session and so of all its completions."""
    found = await read_turn(deps, project, completion_id, user, session)
    change = pb.Session(id=found.session.id, metadata=data.metadata or {})
    request = pb.UpdateSessionRequest(project=project, session=change, user_id=acting_user(user))
    request.update_mask.paths.append("metadata")
    changed = await deps.session_svc.call(deps.stubs.sessions.UpdateSession, request)
    return stored_completion(found.turn, changed.session)


@delete("/v1/chat/completions/{completion_id:str}", status_code=200, scope=SESSIONS_ADMIN)
async def delete_chat_completion(
    completion_id: FromPath[str], deps: Injected, project: Project, user: UserId = None, session: SessionId = None
) -> CompletionDeleted:
    """Deletes a stored completion with its messages. It must be the last one of its session: later ones build on it."""
    user_id = acting_user(user)
    turn_id, session_id = ids_of(completion_id, session)
    request = pb.DeleteTurnRequest(project=project, session_id=session_id, turn_id=turn_id, user_id=user_id)
    try:
        await deps.session_svc.call(deps.stubs.sessions.DeleteTurn, request)
    except ServiceError as error:
        raise CompletionNotFound(completion_id) if error.reason in _GONE else error from None
    return CompletionDeleted(id=completion_id)


def completions_router() -> Router:
    """Returns the routes of this module."""
    reading = [list_chat_completions, get_chat_completion, list_chat_completion_messages]
    return Router(
        "/", route_handlers=[*reading, update_chat_completion, delete_chat_completion, cancel_chat_completion]
    )


def ids_of(completion_id: str, session: str | None) -> tuple[str, str]:
    """Returns the ids of turn and session. Raises `CompletionNotFound`."""
    turn_id, session_id = parse_completion_id(completion_id) or ("", "")
    session_id = session_id or session or ""
    if not (turn_id and session_id):
        raise CompletionNotFound(completion_id)
    return turn_id, session_id


async def read_turn(
    deps: Dependencies, project: str, completion_id: str, user: str | None, session: str | None = None
) -> pb.GetTurnResponse:
    """Returns the turn of a completion, and its session. Raises `CompletionNotFound`."""
    user_id = acting_user(user)
    turn_id, session_id = ids_of(completion_id, session)
    request = pb.GetTurnRequest(project=project, session_id=session_id, turn_id=turn_id, user_id=user_id)
    try:
        found = await deps.session_svc.call(deps.stubs.sessions.GetTurn, request)
    except ServiceError as error:
        raise CompletionNotFound(completion_id) if error.reason in _GONE else error from None
    if not may_read_turns(current(), user_id, found.session.user_id):
        raise CompletionNotFound(completion_id)
    return found


async def _state(
    deps: Dependencies, project: str, completion_id: str, user: str | None, session: str | None
) -> StoredCompletion | None:
    """Returns how far a completion is that is not stored."""
    if deps.background is None:
        return None
    turn_id, session_id = ids_of(completion_id, session)
    user_id = await reading_user(deps, project, session_id, acting_user(user))
    try:
        return state_of_completion(await deps.background.state(project, session_id, user_id, turn_id))
    except ServiceError as error:
        if error.reason in _GONE:
            return None
        raise


def _pairs(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Returns the metadata that are asked for, as `metadata[key]=value`."""
    return {
        name[len("metadata[") : -1]: value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
