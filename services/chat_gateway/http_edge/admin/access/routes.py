"""/v1/projects and /v1/api_keys."""

from urllib.parse import quote

from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody

from access.caller import KEYS_ADMIN, OPERATOR, current
from chat_gateway.http_edge.admin.access.schema import (
    ApiKeyJson,
    NewApiKeyJson,
    NewProjectJson,
    ProjectJson,
    RotatedJson,
    RotateJson,
    api_key_json,
    project_json,
    to_api_key,
)
from chat_gateway.http_edge.admin.routing import VERB, Injected, Page, PageSize, PageToken, Project
from chat_gateway.http_edge.admin.sessions.purges import purge_project
from chat_gateway.http_edge.wire.auth import named_project
from chat_gateway.http_edge.wire.times import to_duration
from contract.fields import DEFAULT_PROJECT, is_resource_id
from contract.reasons import Reason
from parley.config.v1 import access_service_pb2 as pb
from servicekit.errors import InvalidArgument, ServiceError, Violation


@post("/v1/projects", scope=OPERATOR)
async def create_project(data: JSONBody[NewProjectJson], deps: Injected) -> Response[ProjectJson]:
    """Creates a project."""
    request = pb.CreateProjectRequest(project=pb.Project(id=data.id, display_name=data.display_name))
    made = project_json((await deps.config_svc.call(deps.stubs.access.CreateProject, request)).project)
    return Response(made, headers={"Location": f"/v1/projects/{quote(made.id)}"})


@get("/v1/projects", scope=OPERATOR)
async def list_projects(deps: Injected, page_size: PageSize = 0, page_token: PageToken = "") -> Page[ProjectJson]:
    """Lists projects in pages, in order of id."""
    request = pb.ListProjectsRequest(page_size=page_size, page_token=page_token)
    page = await deps.config_svc.call(deps.stubs.access.ListProjects, request)
    return Page(data=[project_json(project) for project in page.projects], next_page_token=page.next_page_token)


@delete("/v1/projects/{project_id:str}", scope=OPERATOR)
async def delete_project(project_id: FromPath[str], deps: Injected) -> None:
    """Deletes a project with everything in it; its audit log stays. `default` can't be deleted.

    A repetition of a request that was not answered removes what is left of its sessions, and is 404.
    """
    request = pb.DeleteProjectRequest(id=project_id)
    try:
        await deps.config_svc.call(deps.stubs.access.DeleteProject, request)
    except ServiceError as error:
        if error.reason == Reason.PROJECT_NOT_FOUND and is_resource_id(project_id):
            await purge_project(deps, project_id)
        raise
    await purge_project(deps, project_id)


@post("/v1/api_keys", scope=KEYS_ADMIN)
async def create_api_key(data: JSONBody[NewApiKeyJson], deps: Injected, project: Project) -> Response[ApiKeyJson]:
    """Creates an API key and shows it this once. It can have no scope that the caller does not have."""
    key = to_api_key(data, _agreed_project(project, data.project), data.user_id or "")
    made = await deps.config_svc.call(deps.stubs.access.CreateApiKey, pb.CreateApiKeyRequest(api_key=key))
    headers = {"Location": f"/v1/api_keys/{quote(made.api_key.id)}", "Cache-Control": "no-store"}
    return Response(api_key_json(made.api_key, made.key), headers=headers)


@get("/v1/api_keys", scope=KEYS_ADMIN)
async def list_api_keys(
    deps: Injected, project: Project, page_size: PageSize = 0, page_token: PageToken = ""
) -> Page[ApiKeyJson]:
    """Lists a project's API keys in pages, without the keys themselves."""
    request = pb.ListApiKeysRequest(project=project, page_size=page_size, page_token=page_token)
    page = await deps.config_svc.call(deps.stubs.access.ListApiKeys, request)
    return Page(data=[api_key_json(key) for key in page.api_keys], next_page_token=page.next_page_token)


@get("/v1/api_keys/{key_id:str}", scope=KEYS_ADMIN)
async def get_api_key(key_id: FromPath[str], deps: Injected, key_project: Project) -> ApiKeyJson:
    """Reads an API key, without the key itself."""
    request = pb.GetApiKeyRequest(project=key_project, id=key_id)
    found = await deps.config_svc.call(deps.stubs.access.GetApiKey, request)
    return api_key_json(found.api_key)


@delete("/v1/api_keys/{key_id:str}", scope=KEYS_ADMIN)
async def revoke_api_key(key_id: FromPath[str], deps: Injected, key_project: Project) -> None:
    """Revokes an API key: no gateway accepts it a second later."""
    request = pb.RevokeApiKeyRequest(project=key_project, id=key_id)
    await deps.config_svc.call(deps.stubs.access.RevokeApiKey, request)


@post(f"/v1/api_keys/{{key_id:str}}/{VERB}rotate", status_code=200, scope=KEYS_ADMIN)
async def rotate_api_key(
    key_id: FromPath[str], deps: Injected, key_project: Project, data: JSONBody[RotateJson | None] = None
) -> Response[RotatedJson]:
    """Creates a key with the rights of another, which expires after an overlap."""
    request = pb.RotateApiKeyRequest(project=key_project, id=key_id)
    if data is not None and data.overlap is not None:
        request.overlap.CopyFrom(to_duration(data.overlap, "overlap"))
    rotated = await deps.config_svc.call(deps.stubs.access.RotateApiKey, request)
    answer = RotatedJson(
        api_key=api_key_json(rotated.api_key, rotated.key), replaced=api_key_json(rotated.replaced_api_key)
    )
    return Response(answer, headers={"Cache-Control": "no-store"})


def access_router() -> Router:
    """Returns the routes of this module."""
    projects = [create_project, list_projects, delete_project]
    keys = [create_api_key, list_api_keys, get_api_key, revoke_api_key, rotate_api_key]
    return Router("/", route_handlers=[*projects, *keys])


def _agreed_project(header: str, in_body: str | None) -> str:
    project = named_project(current(), in_body or header)
    if in_body and header not in (in_body, DEFAULT_PROJECT):
        raise InvalidArgument([Violation("project", "must be the same in the body and in X-Project-ID")])
    return project
