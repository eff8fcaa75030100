"""The gRPC services: convert in, one call, convert out."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from access.caller import current
from config_svc.agents.change_feed import ChangeFeed
from config_svc.agents.configs import AgentConfigs
from config_svc.agents.providers import PublishedProviders
from config_svc.agents.templates import Templates
from config_svc.edge import agents_convert as convert
from config_svc.edge.optional_fields import duration_of
from config_svc.model.note import Note
from parley.config.v1 import agent_config_service_pb2 as pb
from parley.config.v1 import agent_config_service_pb2_grpc as agents_grpc
from parley.config.v1 import provider_service_pb2 as providers_pb
from parley.config.v1 import provider_service_pb2_grpc as providers_grpc
from parley.config.v1 import template_service_pb2 as templates_pb
from parley.config.v1 import template_service_pb2_grpc as templates_grpc

# gRPC names the methods of a servicer.
# ruff: noqa: N802


class AgentConfigServicer(agents_grpc.AgentConfigServiceServicer):
    """Serves `parley.config.v1.AgentConfigService`; the proto says what each method promises."""

    def __init__(self, agents: AgentConfigs, feed: ChangeFeed) -> None:
        self._agents = agents
        self._feed = feed

    async def CreateAgentConfig(
        self, request: pb.CreateAgentConfigRequest, context: Any
    ) -> pb.CreateAgentConfigResponse:
        agent = await self._agents.create(
            convert.project_of(request.project),
            request.agent_config.id,
            convert.spec_of(request.agent_config),
            request_id=request.request_id,
            validate_only=request.validate_only,
            note=Note(current().id, request.comment),
        )
        return pb.CreateAgentConfigResponse(agent_config=convert.agent_to_proto(agent))

    async def GetAgentConfig(self, request: pb.GetAgentConfigRequest, context: Any) -> pb.GetAgentConfigResponse:
        agent = await self._agents.get(
            convert.project_of(request.project), request.id, revision=request.revision, uid=request.uid
        )
        return pb.GetAgentConfigResponse(agent_config=convert.agent_to_proto(agent))

    async def ListAgentConfigs(self, request: pb.ListAgentConfigsRequest, context: Any) -> pb.ListAgentConfigsResponse:
        page, token = await self._agents.list(
            convert.project_of(request.project),
            size=request.page_size,
            token=request.page_token,
            filter_text=request.filter,
            order_by=request.order_by,
            show_deleted=request.show_deleted,
        )
        return pb.ListAgentConfigsResponse(
            agent_configs=[convert.agent_to_proto(agent) for agent in page], next_page_token=token
        )

    async def UpdateAgentConfig(
        self, request: pb.UpdateAgentConfigRequest, context: Any
    ) -> pb.UpdateAgentConfigResponse:
        agent = await self._agents.update(
            convert.project_of(request.project),
            request.agent_config.id,
            convert.spec_of(request.agent_config),
            convert.update_paths(request),
            etag=request.agent_config.etag,
            validate_only=request.validate_only,
            note=Note(current().id, request.comment),
        )
        return pb.UpdateAgentConfigResponse(agent_config=convert.agent_to_proto(agent))

    async def DeleteAgentConfig(
        self, request: pb.DeleteAgentConfigRequest, context: Any
    ) -> pb.DeleteAgentConfigResponse:
        agent = await self._agents.delete(
            convert.project_of(request.project), request.id, etag=request.etag, allow_missing=request.allow_missing
        )
        return pb.DeleteAgentConfigResponse(agent_config=convert.agent_to_proto(agent) if agent else None)

    async def UndeleteAgentConfig(
        self, request: pb.UndeleteAgentConfigRequest, context: Any
    ) -> pb.UndeleteAgentConfigResponse:
        agent = await self._agents.undelete(
            convert.project_of(request.project), request.uid, request.id, deleted_id=request.deleted_id
        )
        return pb.UndeleteAgentConfigResponse(agent_config=convert.agent_to_proto(agent))

    async def ListAgentConfigRevisions(
        self, request: pb.ListAgentConfigRevisionsRequest, context: Any
    ) -> pb.ListAgentConfigRevisionsResponse:
        agent, page, token = await self._agents.revisions(
            convert.project_of(request.project), request.id, size=request.page_size, token=request.page_token
        )
        return pb.ListAgentConfigRevisionsResponse(
            revisions=[convert.revision_to_proto(agent, revision) for revision in page], next_page_token=token
        )

    async def CompareAgentConfigRevisions(
        self, request: pb.CompareAgentConfigRevisionsRequest, context: Any
    ) -> pb.CompareAgentConfigRevisionsResponse:
        before, after, differences = await self._agents.compare(
            convert.project_of(request.project), request.id, before=request.from_revision, after=request.to_revision
        )
        return pb.CompareAgentConfigRevisionsResponse(
            from_revision=before,
            to_revision=after,
            differences=[convert.difference_to_proto(one) for one in differences],
        )

    async def RollbackAgentConfig(
        self, request: pb.RollbackAgentConfigRequest, context: Any
    ) -> pb.RollbackAgentConfigResponse:
        agent = await self._agents.rollback(
            convert.project_of(request.project),
            request.id,
            request.revision,
            etag=request.etag,
            note=Note(current().id, request.comment),
        )
        return pb.RollbackAgentConfigResponse(agent_config=convert.agent_to_proto(agent))

    async def WatchAgentConfigs(
        self, request: pb.WatchAgentConfigsRequest, context: Any
    ) -> AsyncIterator[pb.WatchAgentConfigsResponse]:
        heartbeat = duration_of(request, "heartbeat_interval")
        async with aclosing(self._feed.watch(request.project or None, request.cursor, heartbeat)) as events:
            async for event in events:
                yield convert.event_to_proto(event)


class TemplateServicer(templates_grpc.TemplateServiceServicer):
    """Serves `parley.config.v1.TemplateService`."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates

    async def PublishTemplate(
        self, request: templates_pb.PublishTemplateRequest, context: Any
    ) -> templates_pb.PublishTemplateResponse:
        template = await self._templates.publish(convert.template_of(request.template))
        return templates_pb.PublishTemplateResponse(template=convert.template_to_proto(template))

    async def GetTemplate(
        self, request: templates_pb.GetTemplateRequest, context: Any
    ) -> templates_pb.GetTemplateResponse:
        template = await self._templates.get(request.id, request.version)
        return templates_pb.GetTemplateResponse(template=convert.template_to_proto(template))

    async def ListTemplates(
        self, request: templates_pb.ListTemplatesRequest, context: Any
    ) -> templates_pb.ListTemplatesResponse:
        page, token = await self._templates.list(size=request.page_size, token=request.page_token)
        return templates_pb.ListTemplatesResponse(
            templates=[convert.template_to_proto(template) for template in page], next_page_token=token
        )


class ProviderServicer(providers_grpc.ProviderServiceServicer):
    """Serves `parley.config.v1.ProviderService`."""

    def __init__(self, providers: PublishedProviders) -> None:
        self._providers = providers

    async def PublishProviders(
        self, request: providers_pb.PublishProvidersRequest, context: Any
    ) -> providers_pb.PublishProvidersResponse:
        expire_time = await self._providers.publish(
            request.gateway_id,
            [convert.provider_of(one) for one in request.providers],
            duration_of(request, "ttl"),
        )
        return providers_pb.PublishProvidersResponse(expire_time=convert.timestamp(expire_time))

    async def ListProviders(
        self, request: providers_pb.ListProvidersRequest, context: Any
    ) -> providers_pb.ListProvidersResponse:
        page, token = await self._providers.list(size=request.page_size, token=request.page_token)
        return providers_pb.ListProvidersResponse(
            providers=[convert.provider_to_proto(one) for one in page], next_page_token=token
        )
