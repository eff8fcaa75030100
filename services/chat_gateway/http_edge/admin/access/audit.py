"""/v1/audit: the audit log, in pages or as JSON lines."""

from collections.abc import AsyncGenerator
from typing import Annotated, Literal, cast

import msgspec
from litestar import Response, Router, get
from litestar.params import QueryParameter
from litestar.response import Stream

from access.caller import AUDIT_READ
from chat_gateway.http_edge.admin.access.schema import AuditEventJson, audit_event_json
from chat_gateway.http_edge.admin.routing import (
    JSON_LINES,
    Injected,
    JsonLines,
    JsonRequest,
    Page,
    PageSize,
    PageToken,
    Project,
    json_line,
)
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.http_edge.wire.errors import encode_error
from chat_gateway.http_edge.wire.times import to_timestamp
from parley.config.v1 import access_service_pb2 as pb
from servicekit.errors import ServiceError

LINES_PAGE = 500
MAX_LINES = 1_000_000
"""Lines of one export; the token in its last line continues it."""

Time = Annotated[str | None, QueryParameter(description="RFC 3339, such as 2027-01-31T12:00:00Z.")]


class MoreJson(msgspec.Struct, kw_only=True):
    """The last line of an export that reached its bound."""

    next_page_token: str
    object: str = "audit.more"


@get("/v1/audit", scope=AUDIT_READ, json_lines=JsonLines.ON_REQUEST)
async def list_audit(
    request: JsonRequest,
    deps: Injected,
    project: Project,
    actor: Annotated[str, QueryParameter(description="Only events of this actor.")] = "",
    resource: Annotated[
        str, QueryParameter(description="Only events on this resource, such as agent_configs/support.")
    ] = "",
    start_time: Time = None,
    end_time: Time = None,
    page_size: PageSize = 0,
    page_token: PageToken = "",
    format: Annotated[
        Literal["json", "jsonl"], QueryParameter(description="`jsonl`: all events, one per line, instead of a page.")
    ] = "json",
) -> Response[Page[AuditEventJson]]:
    """Lists a project's audit log, newest first: in pages, or whole as JSON lines (`Accept: application/x-ndjson`).

    An export that fails midway ends with a line that holds the error.
    """
    query = pb.ListAuditEventsRequest(
        project=project, actor=actor, resource=resource, page_size=page_size, page_token=page_token
    )
    if start_time is not None:
        query.start_time.CopyFrom(to_timestamp(start_time, "start_time"))
    if end_time is not None:
        query.end_time.CopyFrom(to_timestamp(end_time, "end_time"))
    as_lines = format == "jsonl" or JSON_LINES in request.headers.get("accept", "")
    if as_lines:
        query.page_size = LINES_PAGE
    page = await _page(deps, query)
    if as_lines:
        # The first page is read before the response begins: until then an error has its own status.
        return cast("Response[Page[AuditEventJson]]", Stream(_lines(deps, query, page), media_type=JSON_LINES))
    events = [audit_event_json(event) for event in page.audit_events]
    return Response(Page(data=events, next_page_token=page.next_page_token))


def audit_router() -> Router:
    """Returns the routes of this module."""
    return Router("/", route_handlers=[list_audit])


async def _lines(
    deps: Dependencies, query: pb.ListAuditEventsRequest, page: pb.ListAuditEventsResponse
) -> AsyncGenerator[bytes, None]:
    sent = 0
    while True:
        yield b"".join(json_line(audit_event_json(event)) for event in page.audit_events)
        sent += len(page.audit_events)
        if not page.next_page_token:
            return
        if sent >= MAX_LINES:
            yield json_line(MoreJson(next_page_token=page.next_page_token))
            return
        query.page_token = page.next_page_token
        try:
            page = await _page(deps, query)
        except ServiceError as error:
            yield encode_error(error) + b"\n"
            return


async def _page(deps: Dependencies, query: pb.ListAuditEventsRequest) -> pb.ListAuditEventsResponse:
    return await deps.config_svc.call(deps.stubs.access.ListAuditEvents, query)
