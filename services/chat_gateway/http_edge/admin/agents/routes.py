"""/v1/agents, /v1/templates, /v1/providers and /v1/models."""

from typing import Annotated, Any
from urllib.parse import quote

from litestar import Response, Router, delete, get, patch, post, put
from litestar.params import FromPath, JSONBody, QueryParameter

from access.caller import AGENTS_READ, AGENTS_WRITE
from chat_gateway.http_edge.admin.agents.schema import (
    PATHS,
    AgentJson,
    ModelCardJson,
    ProviderJson,
    RevisionJson,
    RollbackJson,
    TemplateJson,
    agent_json,
    model_card,
    provider_json,
    revision_json,
    template_json,
    to_agent_config,
)
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
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.model.not_found import ModelNotFound
from contract.fields import is_resource_id
from parley.config.v1 import agent_config_service_pb2 as pb
from parley.config.v1.agent_config_pb2 import AgentConfig
from parley.config.v1.provider_service_pb2 import ListProvidersRequest
from parley.config.v1.template_service_pb2 import ListTemplatesRequest

MODELS_PAGE = 1000

Revision = Annotated[int, QueryParameter(ge=0, le=2**63 - 1, description="A revision instead of the current one.")]


@post("/v1/agents", response_headers=ETAG_HEADER, scope=AGENTS_WRITE)
async def create_agent(
    data: JSONBody[AgentJson],
    deps: Injected,
    project: Project,
    idempotency_key: IdempotencyKey = None,
    validate_only: ValidateOnly = False,
    comment: Comment = "",
) -> Response[AgentJson]:
    """Stores an agent config; no instance is built. A missing id is generated."""
    request = pb.CreateAgentConfigRequest(
        project=project,
        agent_config=to_agent_config(data),
        request_id=idempotency_key or "",
        validate_only=validate_only,
        comment=comment,
    )
    stored = await deps.config_svc.call(deps.stubs.agent_configs.CreateAgentConfig, request)
    agent = agent_json(stored.agent_config)
    if validate_only:
        return Response(agent, status_code=200)
    return with_etag(agent, stored.agent_config.etag, {"Location": f"/v1/agents/{quote(agent.id)}"})


@get("/v1/agents", scope=AGENTS_READ)
async def list_agents(
    deps: Injected,
    project: Project,
    page_size: PageSize = 0,
    page_token: PageToken = "",
    filter: Filter = "",
    order_by: OrderBy = "",
    show_deleted: Annotated[bool, QueryParameter(description="Include deleted ones, until they are purged.")] = False,
) -> Page[AgentJson]:
    """Lists agent configs in pages, in order of id."""
    request = pb.ListAgentConfigsRequest(
        project=project,
        page_size=page_size,
        page_token=page_token,
        filter=filter,
        order_by=order_by,
        show_deleted=show_deleted,
    )
    page = await deps.config_svc.call(deps.stubs.agent_configs.ListAgentConfigs, request)
    return Page(data=[agent_json(config) for config in page.agent_configs], next_page_token=page.next_page_token)


@get("/v1/agents/{agent_id:str}", response_headers=ETAG_HEADER, scope=AGENTS_READ)
async def get_agent(
    agent_id: FromPath[str], deps: Injected, project: Project, revision: Revision = 0
) -> Response[AgentJson]:
    """Reads an agent config, or one of its revisions."""
    config = await _read(deps, project, agent_id, revision)
    return with_etag(agent_json(config), config.etag)


@put("/v1/agents/{agent_id:str}", response_headers=ETAG_HEADER, scope=AGENTS_WRITE)
async def replace_agent(
    agent_id: FromPath[str],
    data: JSONBody[AgentJson],
    deps: Injected,
    project: Project,
    if_match: IfMatch = None,
    validate_only: ValidateOnly = False,
    comment: Comment = "",
) -> Response[AgentJson]:
    """Replaces every writable field; omitted fields return to their defaults."""
    config = to_agent_config(data)
    config.etag = merged_etag(if_match, data.etag)
    set_id(config, agent_id)
    return await _update(deps, project, config, ["*"], validate_only, comment)


@patch("/v1/agents/{agent_id:str}", response_headers=ETAG_HEADER, scope=AGENTS_WRITE)
async def patch_agent(
    agent_id: FromPath[str],
    data: JSONBody[dict[str, Any]],
    deps: Injected,
    project: Project,
    if_match: IfMatch = None,
    validate_only: ValidateOnly = False,
    comment: Comment = "",
) -> Response[AgentJson]:
    """Changes the fields given, as a JSON merge patch (RFC 7396): objects merge, null clears."""

    async def read_and_write(etag: str) -> Response[AgentJson]:
        config, paths = _patched(await _read(deps, project, agent_id), agent_id, data)
        if not paths:
            return with_etag(agent_json(config), config.etag)
        config.etag = etag or config.etag
        return await _update(deps, project, config, paths, validate_only, comment)

    return await write_patch(data, if_match, read_and_write)


@delete("/v1/agents/{agent_id:str}", scope=AGENTS_WRITE)
async def delete_agent(
    agent_id: FromPath[str],
    deps: Injected,
    project: Project,
    etag: Etag = "",
    if_match: IfMatch = None,
) -> None:
    """Deletes the agent config, its sessions and its instances. Once this returns, no new turn starts on it."""
    await deps.deletion.delete(project, agent_id, merged_etag(if_match, etag))


@get("/v1/agents/{agent_id:str}/revisions", scope=AGENTS_READ)
async def list_revisions(
    agent_id: FromPath[str], deps: Injected, project: Project, page_size: PageSize = 0, page_token: PageToken = ""
) -> Page[RevisionJson]:
    """Lists an agent config's revisions in pages, newest first."""
    request = pb.ListAgentConfigRevisionsRequest(
        project=project, id=agent_id, page_size=page_size, page_token=page_token
    )
    page = await deps.config_svc.call(deps.stubs.agent_configs.ListAgentConfigRevisions, request)
    return Page(data=[revision_json(revision) for revision in page.revisions], next_page_token=page.next_page_token)


@post(f"/v1/agents/{{agent_id:str}}/{VERB}rollback", status_code=200, response_headers=ETAG_HEADER, scope=AGENTS_WRITE)
async def rollback_agent(
    agent_id: FromPath[str], data: JSONBody[RollbackJson], deps: Injected, project: Project, if_match: IfMatch = None
) -> Response[AgentJson]:
    """Creates a new revision with the content of an older one."""
    request = pb.RollbackAgentConfigRequest(
        project=project,
        id=agent_id,
        revision=data.revision,
        etag=merged_etag(if_match, data.etag),
        comment=data.comment or "",
    )
    config = (await deps.config_svc.call(deps.stubs.agent_configs.RollbackAgentConfig, request)).agent_config
    deps.configs.forget(project, config.id, config.uid)
    return with_etag(agent_json(config), config.etag)


@get("/v1/templates", scope=AGENTS_READ)
async def list_templates(deps: Injected, page_size: PageSize = 0, page_token: PageToken = "") -> Page[TemplateJson]:
    """Lists the kinds of agent that can be built, in pages."""
    request = ListTemplatesRequest(page_size=page_size, page_token=page_token)
    page = await deps.config_svc.call(deps.stubs.templates.ListTemplates, request)
    return Page(data=[template_json(template) for template in page.templates], next_page_token=page.next_page_token)


@get("/v1/providers", scope=AGENTS_READ)
async def list_providers(deps: Injected, page_size: PageSize = 0, page_token: PageToken = "") -> Page[ProviderJson]:
    """Lists the providers of the running gateways, in pages."""
    request = ListProvidersRequest(page_size=page_size, page_token=page_token)
    page = await deps.config_svc.call(deps.stubs.providers.ListProviders, request)
    return Page(data=[provider_json(provider) for provider in page.providers], next_page_token=page.next_page_token)


@get("/v1/models", scope=AGENTS_READ)
async def list_models(
    deps: Injected, project: Project, page_size: PageSize = 0, page_token: PageToken = ""
) -> Page[ModelCardJson]:
    """Lists the agents as OpenAI lists models; up to 1000 unless page_size says otherwise."""
    request = pb.ListAgentConfigsRequest(project=project, page_size=page_size or MODELS_PAGE, page_token=page_token)
    page = await deps.config_svc.call(deps.stubs.agent_configs.ListAgentConfigs, request)
    return Page(data=[model_card(config) for config in page.agent_configs], next_page_token=page.next_page_token)


@get("/v1/models/{agent_id:str}", scope=AGENTS_READ)
async def get_model(agent_id: FromPath[str], deps: Injected, project: Project) -> ModelCardJson:
    """Reads an agent as OpenAI describes a model."""
    if not is_resource_id(agent_id):
        raise ModelNotFound(agent_id)
    return model_card(await _read(deps, project, agent_id))


def agents_router() -> Router:
    """Returns the routes of this module."""
    agents = [create_agent, list_agents, get_agent, replace_agent, patch_agent, delete_agent]
    revisions = [list_revisions, rollback_agent]
    catalogue = [list_templates, list_providers, list_models, get_model]
    return Router("/", route_handlers=[*agents, *revisions, *catalogue])


async def _read(deps: Dependencies, project: str, agent_id: str, revision: int = 0) -> AgentConfig:
    request = pb.GetAgentConfigRequest(project=project, id=agent_id, revision=revision)
    return (await deps.config_svc.call(deps.stubs.agent_configs.GetAgentConfig, request)).agent_config


async def _update(
    deps: Dependencies, project: str, config: AgentConfig, paths: list[str], validate_only: bool, comment: str
) -> Response[AgentJson]:
    request = pb.UpdateAgentConfigRequest(
        project=project, agent_config=config, validate_only=validate_only, comment=comment
    )
    request.update_mask.paths.extend(paths)
    stored = (await deps.config_svc.call(deps.stubs.agent_configs.UpdateAgentConfig, request)).agent_config
    if validate_only:
        return Response(agent_json(stored))
    deps.configs.forget(project, stored.id, stored.uid)  # turns of this gateway need not wait for its watch
    return with_etag(agent_json(stored), stored.etag)


def _patched(current: AgentConfig, agent_id: str, change: dict[str, Any]) -> tuple[AgentConfig, list[str]]:
    """Returns the agent config with a merge patch applied, and the mask of what the patch names."""
    if change.get("template_id") and "template_version" not in change:
        change = change | {"template_version": None}  # a version of one template means nothing to another
    return patched_message(current, agent_id, change, agent_json, to_agent_config, PATHS)
