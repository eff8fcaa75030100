"""The application of all routes that do not run a turn: it is made once, and the scope of a request has the rest."""

import functools

from litestar import Litestar
from litestar.di import Provide
from litestar.handlers.base import BaseRouteHandler
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import Scope

from chat_gateway.http_edge.admin.access.audit import audit_router
from chat_gateway.http_edge.admin.access.caller import caller_router
from chat_gateway.http_edge.admin.access.routes import access_router
from chat_gateway.http_edge.admin.agents.revisions import revisions_router
from chat_gateway.http_edge.admin.agents.routes import agents_router
from chat_gateway.http_edge.admin.completions.events import completion_events_router
from chat_gateway.http_edge.admin.completions.routes import completions_router
from chat_gateway.http_edge.admin.conversations.routes import conversations_router
from chat_gateway.http_edge.admin.docs import docs_file, docs_page, openapi_document
from chat_gateway.http_edge.admin.figures import figures_router
from chat_gateway.http_edge.admin.openapi import CONFIG
from chat_gateway.http_edge.admin.process import process_router
from chat_gateway.http_edge.admin.responses.routes import responses_router
from chat_gateway.http_edge.admin.route_errors import answer_error
from chat_gateway.http_edge.admin.routing import JsonRequest, dependencies_of
from chat_gateway.http_edge.admin.sessions.routes import sessions_router
from chat_gateway.http_edge.admin.sessions.users import users_router
from chat_gateway.http_edge.admin.tool_servers.routes import tool_servers_router
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.http_edge.wire.auth import (
    Connection,
    note_query_parameters,
    project_of_key,
    project_of_request,
    require_scopes,
)


@functools.cache
def admin_application() -> Litestar:
    """Returns the application. Each request's scope has its `Dependencies` under `DEPENDENCIES`.

    Making it takes 0.2 s. Raises `StartupError` for a route that states no scope.
    """
    agents = (agents_router(), revisions_router(), tool_servers_router())
    sessions = (sessions_router(), users_router(), completions_router(), completion_events_router())
    stored = (responses_router(), conversations_router())
    access = (access_router(), audit_router(), caller_router())
    process = (figures_router(), process_router())
    application = _Application(
        [*agents, *sessions, *stored, *access, *process, docs_page, openapi_document, docs_file],
        request_class=JsonRequest,
        dependencies={
            "deps": Provide(_dependencies, sync_to_thread=False),
            "project": Provide(project_of_request),
            "key_project": Provide(project_of_key),
        },
        guards=[_authorize],
        exception_handlers={Exception: answer_error},
        openapi_config=CONFIG,
        logging_config=None,
    )
    require_scopes(application)
    note_query_parameters(application)
    return application


class _Application(Litestar):
    """Schemas are msgspec's. Litestar's plugins for pydantic and attrs take 2 MB, most of it for pydantic.v1."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def _dependencies(scope: Scope) -> Dependencies:
    return dependencies_of(scope)


async def _authorize(connection: Connection, handler: BaseRouteHandler) -> None:
    await dependencies_of(connection.scope).authorizer.guard(connection, handler)
