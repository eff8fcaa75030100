"""Access to routes: credentials, scopes, and the project and user that a request is bound to.

Every route states the scope that it needs as its option `scope`, and one that is as good as `or_scope`; the application
does not start with a route that states none.
"""

from dataclasses import replace
from typing import Annotated, Any, Final

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.params import HeaderParameter
from litestar.routes import HTTPRoute

from access.authenticator import Authenticator, bearer
from access.binding import bound_project, bound_user, require
from access.caller import ANONYMOUS, Caller, current, note_user_token, set_current
from access.errors import Unauthenticated
from chat_gateway.http_edge.wire.context import current_request
from chat_gateway.http_edge.wire.errors import RouteNotFound
from contract.fields import DEFAULT_PROJECT, RESOURCE_ID_RULE, is_resource_id
from servicekit.errors import InvalidArgument, StartupError, Violation, Violations

OPEN: Final = ""
"""The scope of routes that need no credentials."""

ANY_CREDENTIALS: Final = "any"
"""The scope of routes that need credentials, whatever these may do."""

FRAMEWORK_PATH: Final = "/internal-schema"
"""Where the framework would serve its own description of the routes. It is never served."""

PROJECT_HEADER: Final = "X-Project-ID"

_QUERY: Final = "query_parameters"

Connection = ASGIConnection[Any, Any, Any, Any]


class Authorizer:
    """Identifies who sends a request, and checks their scope. Without an authenticator everybody may do everything."""

    def __init__(self, authenticator: Authenticator | None) -> None:
        self._authenticator = authenticator

    async def authorize(self, authorization: str | None, scope: str, source: str, or_scope: str = "") -> Caller:
        """Returns the caller of a request from the address `source`, who has a scope, and makes it `current()`.

        Raises `Unauthenticated`, `ScopeMissing`, or `Unavailable` when the credentials can't be checked.
        """
        if self._authenticator is None:
            return ANONYMOUS
        if authorization is None:
            raise Unauthenticated("an API key is required: send `Authorization: Bearer …`")
        credential = bearer(authorization)
        caller = self._authenticator.known(credential)
        if caller is None:
            caller = await self._authenticator.caller_of(credential, source)
        if scope != ANY_CREDENTIALS and not (or_scope and caller.may(or_scope)):
            require(caller, scope)
        set_current(caller)
        note_user_token(caller, credential)
        return caller

    async def guard(self, connection: Connection, handler: BaseRouteHandler) -> None:
        """Authorizes a request to one of the framework's routes, before its body is read."""
        scope = handler.opt.get("scope")
        if scope is None:  # the framework's own routes, which are not part of the API
            raise RouteNotFound(str(dict(connection.scope).get("method")), connection.url.path)
        if scope == OPEN:
            return
        request = current_request()
        caller = await self.authorize(
            connection.headers.get("authorization"), scope, request.source, handler.opt.get("or_scope", "")
        )
        set_current(replace(caller, request_id=request.id.decode("latin-1"), source="http"))
        known = handler.opt[_QUERY]
        maps, lists = handler.opt.get("maps", ()), handler.opt.get("lists", ())
        found = Violations()
        for name in connection.query_params:
            base = _map_of(name)
            if name not in known and base not in maps and base not in lists:
                found.add(name, "is not a query parameter of this method")
            elif name not in lists and base not in lists and len(connection.query_params.getall(name)) > 1:
                found.add(name, "must be given once")
        found.check()


def _map_of(name: str) -> str:
    """The parameter that `metadata[key]` is a pair of, or `include[]` an element.

    A route names its own as its options `maps` and `lists`.
    """
    return name.partition("[")[0] if name.endswith("]") else ""


def note_query_parameters(app: Litestar) -> None:
    """Notes for each route the query parameters that it knows: the guard refuses any other, by name."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler, kwargs in route.route_handler_map.values():
                handler.opt[_QUERY] = frozenset(known.field_alias for known in kwargs.expected_query_params)


def require_scopes(app: Litestar) -> None:
    """Raises `StartupError` for a route that states no scope."""
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if (
                "scope" not in handler.opt
                and handler.http_methods != {"OPTIONS"}
                and not _is_framework_path(route.path)
            ):
                raise StartupError(f"the route {route.path} states no scope")


def _is_framework_path(path: str) -> bool:
    return path.startswith(FRAMEWORK_PATH)


async def project_of_request(
    x_project_id: Annotated[
        str | None,
        HeaderParameter(
            name=PROJECT_HEADER, description="The project; an API key has its own. `default` when nothing names one."
        ),
    ] = None,
) -> str:
    """Returns the project that a request of the admin API is about."""
    return named_project(current(), x_project_id or "")


async def project_of_key(
    x_project_id: Annotated[
        str | None,
        HeaderParameter(
            name=PROJECT_HEADER, description="The project; whichever the key is in, for the operator who names none."
        ),
    ] = None,
) -> str:
    """Returns the project of a request about one API key, "" where the caller may name any and names none."""
    named = x_project_id or ""
    return named_project(current(), named) if named else bound_project(current(), "")


def named_project(caller: Caller, named: str) -> str:
    """Returns the project that a request is about. Raises `ProjectDenied`; `InvalidArgument` for what can't be one."""
    project = bound_project(caller, named) or DEFAULT_PROJECT
    if named and not is_resource_id(project):
        raise InvalidArgument([Violation(PROJECT_HEADER, RESOURCE_ID_RULE)])
    return project


def acting_user(header: str | None, in_request: str | None = None) -> str:
    """Returns the user that a request is about, "" for any.

    Raises `InvalidArgument` where header and request differ, `UserDenied` where another than the caller's is named.
    """
    if header and in_request and header != in_request:
        raise InvalidArgument([Violation("user_id", "must be the same in the request and in X-User-ID")])
    return bound_user(current(), in_request or header or "")
