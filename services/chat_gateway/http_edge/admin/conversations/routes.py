"""/v1/conversations: sessions in OpenAI's Conversations API."""

import secrets
from typing import Annotated, Any, Literal

from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from access.caller import SESSIONS_ADMIN, SESSIONS_READ
from chat_gateway.http_edge.admin.conversations.items import ConversationItems, messages_of
from chat_gateway.http_edge.admin.responses.pages import INCLUDE, includes_of
from chat_gateway.http_edge.admin.routing import Injected, Project, UserId
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.http_edge.openai.conversations.schema import (
    Conversation,
    ConversationDeleted,
    ConversationPatch,
    NewConversation,
    NewItems,
)
from chat_gateway.http_edge.openai.metadata import check_openai_metadata
from chat_gateway.http_edge.openai.responses.answer_schema import ItemList
from chat_gateway.http_edge.openai.responses.options import ENCRYPTED_REASONING
from chat_gateway.http_edge.wire.auth import acting_user
from chat_gateway.model.not_found import ConversationItemKept, ConversationNotFound
from contract.reasons import Reason
from parley.session.v1 import session_service_pb2 as pb
from servicekit.errors import ServiceError, Violations

Include = Annotated[str | None, QueryParameter(description="What to show, as `include[]`.")]
_GONE = (Reason.SESSION_NOT_FOUND, Reason.INVALID_FIELD)


@post("/v1/conversations", status_code=200, scope=SESSIONS_ADMIN)
async def create_conversation(
    data: JSONBody[NewConversation], deps: Injected, project: Project, user: UserId = None
) -> Conversation:
    """Creates a conversation, which belongs to the agent of its first response."""
    _check_metadata(data.metadata)
    user_id, given = acting_user(user), messages_of(data.items or [])
    session = pb.Session(id=f"conv_{secrets.token_hex(16)}", user_id=user_id, metadata=data.metadata or {})
    request = pb.CreateSessionRequest(project=project, session=session, for_any_agent=True)
    made = (await deps.session_svc.call(deps.stubs.sessions.CreateSession, request)).session
    if given.messages:
        await ConversationItems(deps, project, made.id, user_id).add(given)
    return _conversation(made)


@get("/v1/conversations/{conversation_id:str}", scope=SESSIONS_READ)
async def get_conversation(
    conversation_id: FromPath[str], deps: Injected, project: Project, user: UserId = None
) -> Conversation:
    """Reads a conversation: any session, by its id."""
    return _conversation(await _read(deps, project, conversation_id, acting_user(user)))


@post("/v1/conversations/{conversation_id:str}", status_code=200, scope=SESSIONS_ADMIN)
async def update_conversation(
    conversation_id: FromPath[str],
    data: JSONBody[ConversationPatch],
    deps: Injected,
    project: Project,
    user: UserId = None,
) -> Conversation:
    """Replaces the metadata of a conversation."""
    _check_metadata(data.metadata)
    change = pb.Session(id=conversation_id, metadata=data.metadata or {})
    request = pb.UpdateSessionRequest(project=project, session=change, user_id=acting_user(user))
    request.update_mask.paths.append("metadata")
    try:
        return _conversation((await deps.session_svc.call(deps.stubs.sessions.UpdateSession, request)).session)
    except ServiceError as error:
        raise ConversationNotFound(conversation_id) if error.reason == Reason.SESSION_NOT_FOUND else error from None


@delete("/v1/conversations/{conversation_id:str}", status_code=200, scope=SESSIONS_ADMIN)
async def delete_conversation(
    conversation_id: FromPath[str], deps: Injected, project: Project, user: UserId = None
) -> ConversationDeleted:
    """Deletes a conversation with its items, and so its responses."""
    request = pb.DeleteSessionRequest(project=project, id=conversation_id, user_id=acting_user(user))
    try:
        await deps.session_svc.call(deps.stubs.sessions.DeleteSession, request)
    except ServiceError as error:
        raise ConversationNotFound(conversation_id) if error.reason in _GONE else error from None
    return ConversationDeleted(id=conversation_id)


@get("/v1/conversations/{conversation_id:str}/items", scope=SESSIONS_READ, lists=INCLUDE)
async def list_conversation_items(
    conversation_id: FromPath[str],
    deps: Injected,
    project: Project,
    request: Request[Any, Any, Any],
    after: Annotated[str, QueryParameter(description="The id of the last item of the page before.")] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="How many to return.")] = 20,
    order: Annotated[Literal["asc", "desc"], QueryParameter(description="Oldest or newest first.")] = "desc",
    include: Include = None,
    user: UserId = None,
) -> ItemList:
    """Lists the items of a conversation: what its callers brought, and what its agent did."""
    keep = ENCRYPTED_REASONING in includes_of(request, include)
    user_id = acting_user(user)
    session = await _read(deps, project, conversation_id, user_id)
    items = ConversationItems(deps, project, session.id, user_id, keep=keep)
    return await items.page(after, limit, newest_first=order == "desc")


@post("/v1/conversations/{conversation_id:str}/items", status_code=200, scope=SESSIONS_ADMIN, lists=INCLUDE)
async def create_conversation_items(
    conversation_id: FromPath[str],
    data: JSONBody[NewItems],
    deps: Injected,
    project: Project,
    request: Request[Any, Any, Any],
    include: Include = None,
    user: UserId = None,
) -> ItemList:
    """Adds items to a conversation, which its agent is shown from then on."""
    includes_of(request, include)
    given, user_id = messages_of(data.items, required=True), acting_user(user)
    session = await _read(deps, project, conversation_id, user_id)
    return await ConversationItems(deps, project, session.id, session.user_id).add(given)


@get("/v1/conversations/{conversation_id:str}/items/{item_id:str}", scope=SESSIONS_READ, lists=INCLUDE)
async def get_conversation_item(
    conversation_id: FromPath[str],
    item_id: FromPath[str],
    deps: Injected,
    project: Project,
    request: Request[Any, Any, Any],
    include: Include = None,
    user: UserId = None,
) -> dict[str, Any]:
    """Reads an item of a conversation."""
    keep = ENCRYPTED_REASONING in includes_of(request, include)
    return await ConversationItems(deps, project, conversation_id, acting_user(user), keep=keep).get(item_id)


@delete("/v1/conversations/{conversation_id:str}/items/{item_id:str}", status_code=200, scope=SESSIONS_ADMIN)
async def delete_conversation_item(
    conversation_id: FromPath[str], item_id: FromPath[str], deps: Injected, project: Project, user: UserId = None
) -> Conversation:
    """Refused: later answers were given with the item in view. Delete the last response, or the conversation."""
    user_id = acting_user(user)
    await ConversationItems(deps, project, conversation_id, user_id).get(item_id)
    raise ConversationItemKept(item_id)


def conversations_router() -> Router:
    """Returns the routes of this module."""
    reading = [get_conversation, list_conversation_items, get_conversation_item]
    writing = [create_conversation, update_conversation, delete_conversation]
    of_items = [create_conversation_items, delete_conversation_item]
    return Router("/", route_handlers=[*reading, *writing, *of_items])


async def _read(deps: Dependencies, project: str, conversation_id: str, user_id: str) -> pb.Session:
    request = pb.GetSessionRequest(project=project, id=conversation_id, user_id=user_id)
    try:
        return (await deps.session_svc.call(deps.stubs.sessions.GetSession, request)).session
    except ServiceError as error:
        raise ConversationNotFound(conversation_id) if error.reason in _GONE else error from None


def _check_metadata(metadata: dict[str, str] | None) -> None:
    found = Violations()
    check_openai_metadata(found, metadata)
    found.check()


def _conversation(session: pb.Session) -> Conversation:
    return Conversation(id=session.id, created_at=session.create_time.seconds, metadata=dict(session.metadata))
