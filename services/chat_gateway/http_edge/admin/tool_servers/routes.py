"""/v1/tool_servers."""

from typing import Any
from urllib.parse import quote

from litestar import Response, Router, delete, get, patch, post, put
from litestar.params import FromPath, JSONBody

from access.caller import AGENTS_READ, TOOLS_WRITE
from chat_gateway.http_edge.admin.merge_patch import patched_message, set_id, write_patch
from chat_gateway.http_edge.admin.routing import (
    ETAG_HEADER,
    VERB,
    Comment,
    Etag,
    Filter,
    IdempotencyKey,
    IfMatch,
    Injected,
    OrderBy,
    Page,
    PageSize,
    PageToken,
    Project,
    ValidateOnly,
    merged_etag,
    with_etag,
)
from chat_gateway.http_edge.admin.tool_servers.schema import (
    PATHS,
    ToolServerJson,
    ToolServerRevisionJson,
    ToolServerTestJson,
    outcome_json,
    revision_json,
    to_tool_server,
    tool_server_json,
)
from chat_gateway.http_edge.dependencies import Dependencies
from parley.config.v1 import tool_server_service_pb2 as pb
from parley.config.v1.tool_server_pb2 import ToolServer


@post("/v1/tool_servers", response_headers=ETAG_HEADER, scope=TOOLS_WRITE)
async def create_tool_server(
    data: JSONBody[ToolServerJson],
    deps: Injected,
    project: Project,
    idempotency_key: IdempotencyKey = None,
    validate_only: ValidateOnly = False,
    comment: Comment = "",
) -> Response[ToolServerJson]:
    """Stores a tool server; nothing is connected to."""
    request = pb.CreateToolServerRequest(
        project=project,
        tool_server=to_tool_server(data),
        request_id=idempotency_key or "",
        validate_only=validate_only,
        comment=comment,
    )
    stored = (await deps.config_svc.call(deps.stubs.tool_servers.CreateToolServer, request)).tool_server
    server = tool_server_json(stored)
    if validate_only:
        return Response(server, status_code=200)
    return with_etag(server, stored.etag, {"Location": f"/v1/tool_servers/{quote(server.id)}"})


@get("/v1/tool_servers", scope=AGENTS_READ)
async def list_tool_servers(
    deps: Injected,
    project: Project,
    page_size: PageSize = 0,
    page_token: PageToken = "",
    filter: Filter = "",
    order_by: OrderBy = "",
) -> Page[ToolServerJson]:
    """Lists tool servers in pages, in order of id."""
    request = pb.ListToolServersRequest(
        project=project, page_size=page_size, page_token=page_token, filter=filter, order_by=order_by
    )
    page = await deps.config_svc.call(deps.stubs.tool_servers.ListToolServers, request)
    return Page(data=[tool_server_json(one) for one in page.tool_servers], next_page_token=page.next_page_token)


@get("/v1/tool_servers/{tool_server_id:str}", response_headers=ETAG_HEADER, scope=AGENTS_READ)
async def get_tool_server(tool_server_id: FromPath[str], deps: Injected, project: Project) -> Response[ToolServerJson]:
    """Reads a tool server."""
    server = await _read(deps, project, tool_server_id)
    return with_etag(tool_server_json(server), server.etag)


@put("/v1/tool_servers/{tool_server_id:str}", response_headers=ETAG_HEADER, scope=TOOLS_WRITE)
async def replace_tool_server(
    tool_server_id: FromPath[str],
    data: JSONBody[ToolServerJson],
    deps: Injected,
    project: Project,
    if_match: IfMatch = None,
    validate_only: ValidateOnly = False,
    comment: Comment = "",
) -> Response[ToolServerJson]:
    """Replaces every writable field; omitted fields return to their defaults. The kind can't be changed."""
    server = to_tool_server(data)
    server.etag = merged_etag(if_match, data.etag)
    set_id(server, tool_server_id)
    return await _update(deps, project, server, ["*"], validate_only, comment)


@patch("/v1/tool_servers/{tool_server_id:str}", response_headers=ETAG_HEADER, scope=TOOLS_WRITE)
async def patch_tool_server(
    tool_server_id: FromPath[str],
    data: JSONBody[dict[str, Any]],
    deps: Injected,
    project: Project,
    if_match: IfMatch = None,
    validate_only: ValidateOnly = False,
    comment: Comment = "",
) -> Response[ToolServerJson]:
    """Changes the fields given, as a JSON merge patch (RFC 7396): objects merge, null clears."""

    async def read_and_write(etag: str) -> Response[ToolServerJson]:
        current = await _read(deps, project, tool_server_id)
        server, paths = patched_message(current, tool_server_id, data, tool_server_json, to_tool_server, PATHS)
        if not paths:
            return with_etag(tool_server_json(server), server.etag)
        server.etag = etag or server.etag
        return await _update(deps, project, server, paths, validate_only, comment)

    return await write_patch(data, if_match, read_and_write)


@delete("/v1/tool_servers/{tool_server_id:str}", scope=TOOLS_WRITE)
async def delete_tool_server(
    tool_server_id: FromPath[str],
    deps: Injected,
    project: Project,
    etag: Etag = "",
    if_match: IfMatch = None,
) -> None:
    """Deletes a tool server that no agent names. No gateway uses it 5 s later."""
    request = pb.DeleteToolServerRequest(project=project, id=tool_server_id, etag=merged_etag(if_match, etag))
    await deps.config_svc.call(deps.stubs.tool_servers.DeleteToolServer, request)


@get("/v1/tool_servers/{tool_server_id:str}/revisions", scope=AGENTS_READ)
async def list_tool_server_revisions(
    tool_server_id: FromPath[str],
    deps: Injected,
    project: Project,
    page_size: PageSize = 0,
    page_token: PageToken = "",
) -> Page[ToolServerRevisionJson]:
    """Lists a tool server's revisions in pages, newest first."""
    request = pb.ListToolServerRevisionsRequest(
        project=project, id=tool_server_id, page_size=page_size, page_token=page_token
    )
    page = await deps.config_svc.call(deps.stubs.tool_servers.ListToolServerRevisions, request)
    return Page(data=[revision_json(revision) for revision in page.revisions], next_page_token=page.next_page_token)


@post(f"/v1/tool_servers/{{tool_server_id:str}}/{VERB}test", status_code=200, scope=TOOLS_WRITE)
async def test_tool_server(tool_server_id: FromPath[str], deps: Injected, project: Project) -> ToolServerTestJson:
    """Connects to the tool server and lists its tools. The response says why they are unavailable, if they are."""
    return outcome_json(await deps.tool_servers.test(project, tool_server_id))


def tool_servers_router() -> Router:
    """Returns the routes of this module."""
    writes = [create_tool_server, replace_tool_server, patch_tool_server, delete_tool_server]
    reads = [list_tool_servers, get_tool_server, list_tool_server_revisions]
    return Router("/", route_handlers=[*writes, *reads, test_tool_server])


async def _read(deps: Dependencies, project: str, tool_server_id: str) -> ToolServer:
    request = pb.GetToolServerRequest(project=project, id=tool_server_id)
    return (await deps.config_svc.call(deps.stubs.tool_servers.GetToolServer, request)).tool_server


async def _update(
    deps: Dependencies, project: str, server: ToolServer, paths: list[str], validate_only: bool, comment: str
) -> Response[ToolServerJson]:
    request = pb.UpdateToolServerRequest(
        project=project, tool_server=server, validate_only=validate_only, comment=comment
    )
    request.update_mask.paths.extend(paths)
    stored = (await deps.config_svc.call(deps.stubs.tool_servers.UpdateToolServer, request)).tool_server
    if validate_only:
        return Response(tool_server_json(stored))
    return with_etag(tool_server_json(stored), stored.etag)
