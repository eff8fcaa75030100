"""`parley.config.v1.ToolServerService`: convert in, one call, convert out."""

from typing import Any

from access.caller import current
from config_svc.edge import tool_servers_convert as convert
from config_svc.edge.agents_convert import project_of
from config_svc.model.note import Note
from config_svc.tool_servers.servers import ToolServers
from parley.config.v1 import tool_server_service_pb2 as pb
from parley.config.v1 import tool_server_service_pb2_grpc as tool_servers_grpc

# gRPC names the methods of a servicer.
# ruff: noqa: N802


class ToolServerServicer(tool_servers_grpc.ToolServerServiceServicer):
    """Serves `parley.config.v1.ToolServerService`; the proto says what each method promises."""

    def __init__(self, servers: ToolServers) -> None:
        self._servers = servers

    async def CreateToolServer(self, request: pb.CreateToolServerRequest, context: Any) -> pb.CreateToolServerResponse:
        server = await self._servers.create(
            project_of(request.project),
            request.tool_server.id,
            convert.spec_of(request.tool_server),
            request_id=request.request_id,
            validate_only=request.validate_only,
            note=Note(current().id, request.comment),
        )
        return pb.CreateToolServerResponse(tool_server=convert.to_proto(server))

    async def GetToolServer(self, request: pb.GetToolServerRequest, context: Any) -> pb.GetToolServerResponse:
        server = await self._servers.get(project_of(request.project), request.id)
        return pb.GetToolServerResponse(tool_server=convert.to_proto(server))

    async def ListToolServers(self, request: pb.ListToolServersRequest, context: Any) -> pb.ListToolServersResponse:
        page, token = await self._servers.list(
            project_of(request.project),
            size=request.page_size,
            token=request.page_token,
            filter_text=request.filter,
            order_by=request.order_by,
        )
        return pb.ListToolServersResponse(tool_servers=[convert.to_proto(one) for one in page], next_page_token=token)

    async def UpdateToolServer(self, request: pb.UpdateToolServerRequest, context: Any) -> pb.UpdateToolServerResponse:
        server = await self._servers.update(
            project_of(request.project),
            request.tool_server.id,
            convert.spec_of(request.tool_server),
            convert.update_paths(request),
            etag=request.tool_server.etag,
            validate_only=request.validate_only,
            note=Note(current().id, request.comment),
        )
        return pb.UpdateToolServerResponse(tool_server=convert.to_proto(server))

    async def DeleteToolServer(self, request: pb.DeleteToolServerRequest, context: Any) -> pb.DeleteToolServerResponse:
        await self._servers.delete(
            project_of(request.project), request.id, etag=request.etag, allow_missing=request.allow_missing
        )
        return pb.DeleteToolServerResponse()

    async def ListToolServerRevisions(
        self, request: pb.ListToolServerRevisionsRequest, context: Any
    ) -> pb.ListToolServerRevisionsResponse:
        server, page, token = await self._servers.revisions(
            project_of(request.project), request.id, size=request.page_size, token=request.page_token
        )
        return pb.ListToolServerRevisionsResponse(
            revisions=[convert.revision_to_proto(server, one) for one in page], next_page_token=token
        )
