"""Comparing an agent's revisions, and undeleting an agent."""

from typing import Annotated

from litestar import Response, Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from access.caller import AGENTS_READ, AGENTS_WRITE
from chat_gateway.http_edge.admin.agents.schema import (
    AgentJson,
    ComparisonJson,
    UndeleteJson,
    agent_json,
    comparison_json,
)
from chat_gateway.http_edge.admin.routing import ETAG_HEADER, VERB, Injected, Project, with_etag
from parley.config.v1 import agent_config_service_pb2 as pb

_MAX = 2**63 - 1


@get("/v1/agents/{agent_id:str}/compare", scope=AGENTS_READ)
async def compare_revisions(
    agent_id: FromPath[str],
    deps: Injected,
    project: Project,
    from_revision: Annotated[
        int, QueryParameter(ge=0, le=_MAX, description="The first revision; the one before to_revision when 0.")
    ] = 0,
    to_revision: Annotated[
        int, QueryParameter(ge=0, le=_MAX, description="The second revision; the current one when 0.")
    ] = 0,
) -> ComparisonJson:
    """Compares two revisions field by field."""
    request = pb.CompareAgentConfigRevisionsRequest(
        project=project, id=agent_id, from_revision=from_revision, to_revision=to_revision
    )
    return comparison_json(await deps.config_svc.call(deps.stubs.agent_configs.CompareAgentConfigRevisions, request))


@post(f"/v1/agents/{{agent_id:str}}/{VERB}undelete", status_code=200, response_headers=ETAG_HEADER, scope=AGENTS_WRITE)
async def undelete_agent(
    agent_id: FromPath[str], data: JSONBody[UndeleteJson], deps: Injected, project: Project
) -> Response[AgentJson]:
    """Restores a deleted agent config with all its revisions, under another id where its own is taken.

    Its sessions stay deleted. New turns start as soon as session_svc has received the change from config_svc.
    """
    request = pb.UndeleteAgentConfigRequest(project=project, uid=data.uid or "", id=data.id or "", deleted_id=agent_id)
    config = (await deps.config_svc.call(deps.stubs.agent_configs.UndeleteAgentConfig, request)).agent_config
    return with_etag(agent_json(config), config.etag)


def revisions_router() -> Router:
    """Returns the routes of this module."""
    return Router("/", route_handlers=[compare_revisions, undelete_agent])
