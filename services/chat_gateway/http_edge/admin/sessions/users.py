"""/v1/users: exporting and erasing everything stored about a user.

The user is named in the body: ids of users may hold characters that a path can't.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from litestar import Response, Router, post
from litestar.params import JSONBody
from litestar.response import Stream

from access.caller import SESSIONS_ADMIN, SESSIONS_READ
from chat_gateway.http_edge.admin.routing import JSON_LINES, VERB, Injected, JsonLines, Project, UserId, json_line
from chat_gateway.http_edge.admin.sessions.schema import (
    ErasureJson,
    SessionJson,
    UserJson,
    erasure_json,
    messages_json,
    session_json,
)
from chat_gateway.http_edge.wire.auth import acting_user
from chat_gateway.http_edge.wire.errors import encode_error
from parley.session.v1 import session_service_pb2 as pb
from servicekit.errors import InvalidArgument, ServiceError, Violation


@post(f"/v1/users/{VERB}export", status_code=200, scope=SESSIONS_READ, json_lines=JsonLines.ONLY)
async def export_user(
    data: JSONBody[UserJson], deps: Injected, project: Project, user: UserId = None
) -> Response[SessionJson]:
    """Streams everything stored about a user as JSON lines: a session, its messages, then the next session.

    An export that fails midway ends with a line that holds the error.
    """
    request = pb.ExportUserRequest(project=project, user_id=_named_user(user, data.user_id))
    items = deps.session_svc.stream(deps.stubs.sessions.ExportUser, request, timeout=deps.settings.purge_timeout)
    try:
        first = await anext(items, None)
    except BaseException:
        await items.aclose()
        raise
    return cast("Response[SessionJson]", Stream(_lines(first, items), media_type=JSON_LINES))


@post(f"/v1/users/{VERB}erase", status_code=200, scope=SESSIONS_ADMIN)
async def erase_user(data: JSONBody[UserJson], deps: Injected, project: Project, user: UserId = None) -> ErasureJson:
    """Removes everything stored about a user, and replaces the user by a pseudonym in the audit log.

    API keys bound to the user are revoked first, including one that makes this request.
    """
    named = _named_user(user, data.user_id)
    request = pb.EraseUserRequest(project=project, user_id=named)
    timeout = deps.settings.purge_timeout
    return erasure_json(named, await deps.session_svc.call(deps.stubs.sessions.EraseUser, request, timeout=timeout))


def users_router() -> Router:
    """Returns the routes of this module."""
    return Router("/", route_handlers=[export_user, erase_user])


def _named_user(header: str | None, in_body: str | None) -> str:
    user = acting_user(header, in_body)
    if not user:
        raise InvalidArgument([Violation("user_id", "is required")])
    return user


async def _lines(
    first: pb.ExportUserResponse | None, items: AsyncGenerator[pb.ExportUserResponse, None]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(items):
        try:
            item = first
            while item is not None:
                yield _line(item)
                item = await anext(items, None)
        except ServiceError as error:
            yield encode_error(error) + b"\n"


def _line(item: pb.ExportUserResponse) -> bytes:
    if item.WhichOneof("item") == "session":
        return json_line(session_json(item.session))
    return b"".join(json_line(message) for message in messages_json(item.turn))
