"""/v1/sessions."""

from typing import Annotated, Literal
from urllib.parse import quote

from litestar import Response, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET

from access.caller import SESSIONS_ADMIN, SESSIONS_READ
from chat_gateway.http_edge.admin.merge_patch import merge
from chat_gateway.http_edge.admin.routing import (
    VERB,
    Injected,
    Page,
    PageSize,
    PageToken,
    Project,
    UserId,
)
from chat_gateway.http_edge.admin.sessions.purges import purge
from chat_gateway.http_edge.admin.sessions.schema import (
    ForkBody,
    PurgeBody,
    Purged,
    SessionJson,
    SessionMessageJson,
    SessionPatch,
    messages_json,
    session_json,
)
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.http_edge.wire.auth import acting_user
from chat_gateway.http_edge.wire.times import proto_timestamp, to_duration
from parley.session.v1 import session_service_pb2 as pb
from servicekit.errors import InvalidArgument, Violation

_ORDERS = {"asc": pb.ORDER_OLDEST_FIRST, "desc": pb.ORDER_NEWEST_FIRST}


@get("/v1/sessions", scope=SESSIONS_READ)
async def list_sessions(
    deps: Injected,
    project: Project,
    agent_id: Annotated[str, QueryParameter(description="Only sessions of this agent.")] = "",
    user_id: Annotated[str, QueryParameter(description="Only sessions of this user.")] = "",
    page_size: PageSize = 0,
    page_token: PageToken = "",
    user: UserId = None,
) -> Page[SessionJson]:
    """Lists live sessions in pages, the most recently active first. A page may be short before the last one."""
    request = pb.ListSessionsRequest(
        project=project,
        agent_id=agent_id,
        user_id=acting_user(user, user_id),
        page_size=page_size,
        page_token=page_token,
    )
    page = await deps.session_svc.call(deps.stubs.sessions.ListSessions, request)
    return Page(data=[session_json(session) for session in page.sessions], next_page_token=page.next_page_token)


@get("/v1/sessions/{session_id:str}", scope=SESSIONS_READ)
async def get_session(session_id: FromPath[str], deps: Injected, project: Project, user: UserId = None) -> SessionJson:
    """Reads a session, without extending its life."""
    return session_json(await _read(deps, project, session_id, user))


@get("/v1/sessions/{session_id:str}/messages", scope=SESSIONS_READ)
async def list_messages(
    session_id: FromPath[str],
    deps: Injected,
    project: Project,
    order: Annotated[Literal["asc", "desc"], QueryParameter(description="Oldest or newest first.")] = "asc",
    page_size: Annotated[
        int, QueryParameter(ge=0, le=2**31 - 1, description="How many turns; a turn is never split.")
    ] = 0,
    page_token: PageToken = "",
    user: UserId = None,
) -> Response[Page[SessionMessageJson]]:
    """Lists messages in pages, oldest first. A page holds whole turns. `X-Session-Expires` is its expiry."""
    request = pb.ListMessagesRequest(
        project=project,
        session_id=session_id,
        user_id=acting_user(user),
        page_size=page_size,
        page_token=page_token,
        order=_ORDERS[order],
    )
    page = await deps.session_svc.call(deps.stubs.sessions.ListMessages, request)
    step = -1 if order == "desc" else 1
    messages = [message for turn in page.turns for message in messages_json(turn)[::step]]
    expires = {"X-Session-Expires": proto_timestamp(page.session_expire_time)}
    return Response(Page(data=messages, next_page_token=page.next_page_token), headers=expires)


@patch("/v1/sessions/{session_id:str}", scope=SESSIONS_ADMIN)
async def patch_session(
    session_id: FromPath[str], data: JSONBody[SessionPatch], deps: Injected, project: Project, user: UserId = None
) -> SessionJson:
    """Changes metadata, idle_ttl or pinned_revision, as a JSON merge patch (RFC 7396)."""
    session = pb.Session(id=session_id)
    request = pb.UpdateSessionRequest(project=project, session=session, user_id=acting_user(user))
    if isinstance(data.metadata, dict):
        current = await _read(deps, project, session_id, user)
        request.session.metadata.update(merge(dict(current.metadata), data.metadata))
    if isinstance(data.idle_ttl, str):
        request.session.idle_ttl.CopyFrom(to_duration(data.idle_ttl, "idle_ttl"))
    if isinstance(data.pinned_revision, int):
        request.session.pinned_revision = data.pinned_revision
    paths = ("metadata", "idle_ttl", "pinned_revision")
    request.update_mask.paths.extend(path for path in paths if getattr(data, path) is not UNSET)
    if not request.update_mask.paths:
        return session_json(await _read(deps, project, session_id, user))
    changed = await deps.session_svc.call(deps.stubs.sessions.UpdateSession, request)
    return session_json(changed.session)


@delete("/v1/sessions/{session_id:str}", scope=SESSIONS_ADMIN)
async def delete_session(session_id: FromPath[str], deps: Injected, project: Project, user: UserId = None) -> None:
    """Deletes a session with its history; a turn running on it can no longer be stored."""
    request = pb.DeleteSessionRequest(project=project, id=session_id, user_id=acting_user(user))
    await deps.session_svc.call(deps.stubs.sessions.DeleteSession, request)


@post(f"/v1/sessions/{{session_id:str}}/{VERB}fork", scope=SESSIONS_ADMIN)
async def fork_session(
    session_id: FromPath[str], data: JSONBody[ForkBody], deps: Injected, project: Project, user: UserId = None
) -> Response[SessionJson]:
    """Creates a session with the history of another, up to a turn."""
    request = pb.ForkSessionRequest(
        project=project,
        session_id=session_id,
        new_session_id=data.id or "",
        up_to_turn=data.up_to_turn or 0,
        user_id=acting_user(user),
    )
    forked = (await deps.session_svc.call(deps.stubs.sessions.ForkSession, request)).session
    return Response(session_json(forked), headers={"Location": f"/v1/sessions/{quote(forked.id)}"})


@post(f"/v1/sessions/{VERB}purge", status_code=200, scope=SESSIONS_ADMIN)
async def purge_sessions(data: JSONBody[PurgeBody], deps: Injected, project: Project, user: UserId = None) -> Purged:
    """Deletes all sessions of an agent, of a user, or idle for long. A repeated request continues."""
    request = pb.DeleteSessionsRequest(
        project=project, agent_id=data.agent_id or "", user_id=acting_user(user, data.user_id)
    )
    if data.idle_longer_than is not None:
        request.idle_longer_than.CopyFrom(to_duration(data.idle_longer_than, "idle_longer_than"))
    if not (request.agent_id or request.user_id or request.HasField("idle_longer_than")):
        raise InvalidArgument([Violation("", "one of agent_id, user_id and idle_longer_than is required")])
    return Purged(deleted=await purge(deps, request))


def sessions_router() -> Router:
    """Returns the routes of this module."""
    reading = [list_sessions, get_session, list_messages]
    writing = [patch_session, delete_session, fork_session, purge_sessions]
    return Router("/", route_handlers=[*reading, *writing])


async def _read(deps: Dependencies, project: str, session_id: str, user: str | None) -> pb.Session:
    request = pb.GetSessionRequest(project=project, id=session_id, user_id=acting_user(user))
    return (await deps.session_svc.call(deps.stubs.sessions.GetSession, request)).session
