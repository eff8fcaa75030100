"""The gRPC service of projects, API keys and the audit log: convert in, one call, convert out."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from config_svc.access.api_keys import ApiKeys
from config_svc.access.key_feed import AccessFeed
from config_svc.access.projects import Projects
from config_svc.audit.log import AuditLog
from config_svc.edge import access_convert as convert
from config_svc.edge.agents_convert import project_of
from config_svc.edge.optional_fields import duration_of
from parley.config.v1 import access_service_pb2 as pb
from parley.config.v1 import access_service_pb2_grpc

# gRPC names the methods of a servicer.
# ruff: noqa: N802


class AccessServicer(access_service_pb2_grpc.AccessServiceServicer):
    """Serves `parley.config.v1.AccessService`; the proto says what each method promises."""

    def __init__(self, projects: Projects, keys: ApiKeys, feed: AccessFeed, audit: AuditLog) -> None:
        self._projects = projects
        self._keys = keys
        self._feed = feed
        self._audit = audit

    async def CreateProject(self, request: pb.CreateProjectRequest, context: Any) -> pb.CreateProjectResponse:
        project = await self._projects.create(request.project.id, request.project.display_name)
        return pb.CreateProjectResponse(project=convert.project_to_proto(project))

    async def ListProjects(self, request: pb.ListProjectsRequest, context: Any) -> pb.ListProjectsResponse:
        page, token = await self._projects.list(size=request.page_size, token=request.page_token)
        return pb.ListProjectsResponse(
            projects=[convert.project_to_proto(project) for project in page], next_page_token=token
        )

    async def DeleteProject(self, request: pb.DeleteProjectRequest, context: Any) -> pb.DeleteProjectResponse:
        await self._projects.delete(request.id)
        return pb.DeleteProjectResponse()

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Any) -> pb.CreateApiKeyResponse:
        key, text = await self._keys.create(convert.key_of(request.api_key))
        return pb.CreateApiKeyResponse(api_key=convert.key_to_proto(key), key=text)

    async def GetApiKey(self, request: pb.GetApiKeyRequest, context: Any) -> pb.GetApiKeyResponse:
        key = await self._keys.get(request.project, request.id)
        return pb.GetApiKeyResponse(api_key=convert.key_to_proto(key))

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Any) -> pb.ListApiKeysResponse:
        page, token = await self._keys.list(
            project_of(request.project), size=request.page_size, token=request.page_token
        )
        return pb.ListApiKeysResponse(api_keys=[convert.key_to_proto(key) for key in page], next_page_token=token)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Any) -> pb.RevokeApiKeyResponse:
        key = await self._keys.revoke(request.project, request.id)
        return pb.RevokeApiKeyResponse(api_key=convert.key_to_proto(key))

    async def RevokeUserApiKeys(
        self, request: pb.RevokeUserApiKeysRequest, context: Any
    ) -> pb.RevokeUserApiKeysResponse:
        count = await self._keys.revoke_user(project_of(request.project), request.user_id)
        return pb.RevokeUserApiKeysResponse(revoked_api_key_count=count)

    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, context: Any) -> pb.RotateApiKeyResponse:
        new, text, old = await self._keys.rotate(request.project, request.id, duration_of(request, "overlap"))
        return pb.RotateApiKeyResponse(
            api_key=convert.key_to_proto(new), key=text, replaced_api_key=convert.key_to_proto(old)
        )

    async def CheckApiKey(self, request: pb.CheckApiKeyRequest, context: Any) -> pb.CheckApiKeyResponse:
        return pb.CheckApiKeyResponse(api_key=convert.key_to_proto(await self._keys.check(request.key)))

    async def WatchAccess(self, request: pb.WatchAccessRequest, context: Any) -> AsyncIterator[pb.WatchAccessResponse]:
        async with aclosing(self._feed.watch(duration_of(request, "heartbeat_interval"))) as events:
            async for ended in events:
                yield pb.WatchAccessResponse(api_key_ids=ended)

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Any) -> pb.ListAuditEventsResponse:
        page, token = await self._audit.list(
            convert.audit_query_of(request), size=request.page_size, token=request.page_token
        )
        return pb.ListAuditEventsResponse(
            audit_events=[convert.event_to_proto(event) for event in page], next_page_token=token
        )

    async def RecordAuditEvent(self, request: pb.RecordAuditEventRequest, context: Any) -> pb.RecordAuditEventResponse:
        await self._audit.record(convert.event_of(request.audit_event))
        return pb.RecordAuditEventResponse()

    async def EraseAuditSubject(
        self, request: pb.EraseAuditSubjectRequest, context: Any
    ) -> pb.EraseAuditSubjectResponse:
        count = await self._audit.erase(project_of(request.project), request.user_id)
        return pb.EraseAuditSubjectResponse(audit_event_count=count)
