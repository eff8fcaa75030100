"""/v1/auth and /v1/caller: how to sign in, where the gRPC API is, and the rights of a request's credentials."""

import msgspec
from litestar import Response, Router, get

from access.caller import IMPLIED, KEY_SCOPES, OPERATOR, Caller, current
from chat_gateway.http_edge.admin.routing import Injected
from chat_gateway.http_edge.wire.auth import ANY_CREDENTIALS, OPEN


class IssuerJson(msgspec.Struct, kw_only=True):
    """An identity provider that people can log in with: a public client, authorization code with PKCE (RFC 7636)."""

    issuer: str
    client_id: str
    scopes: list[str]
    authorization_url: str | None
    """Where its discovery document says, when null; so is `token_url`."""
    token_url: str | None
    token: str
    """Which of the tokens is sent as the credential: `access_token` or `id_token`."""


class AuthJson(msgspec.Struct, kw_only=True):
    """How callers identify themselves."""

    required: bool
    """False: everybody may do everything, without credentials."""
    issuers: list[IssuerJson]
    grpc_target: str | None
    """Where callers reach the gRPC API, `host:port`, where the operator names it (`PARLEY_GATEWAY_A2A_GRPC_URL`)."""
    grpc_port: int | None
    """The port of the gRPC API at the gateway itself; null when it took any free one."""
    object: str = "auth"


class CallerJson(msgspec.Struct, kw_only=True):
    """The caller of a request, and what it may do."""

    id: str
    """As in the audit log: an API key's id, `token:` and a user, `operator`, or `anonymous`."""
    project: str | None
    """The only project that it may name; any when null."""
    user_id: str | None
    """The only user that it may act for; any when null."""
    scopes: list[str]
    """With those that they imply. `operator`: everything, in every project."""
    object: str = "caller"


@get("/v1/auth", scope=OPEN)
async def get_auth(deps: Injected) -> AuthJson:
    """Reports whether credentials are required, which identity providers people can log in with, and where gRPC is."""
    issuers = [
        IssuerJson(
            issuer=one.issuer,
            client_id=one.client_id,
            scopes=list(one.login_scopes),
            authorization_url=one.authorization_url,
            token_url=one.token_url,
            # An id token is for its client: it is a credential here only where that is the audience that is accepted.
            token="id_token" if one.audience == one.client_id else "access_token",
        )
        for one in deps.settings.issuers
        if one.client_id is not None
    ]
    return AuthJson(
        required=deps.authenticated,
        issuers=issuers if deps.authenticated else [],
        grpc_target=deps.settings.grpc_target or None,
        grpc_port=deps.settings.grpc_port or None,
    )


@get("/v1/caller", scope=ANY_CREDENTIALS)
async def get_caller() -> Response[CallerJson]:
    """Reports the caller that the request's credentials identify, and what it may do."""
    caller = current()
    answer = CallerJson(
        id=caller.id, project=caller.project or None, user_id=caller.user_id or None, scopes=_scopes(caller)
    )
    return Response(answer, headers={"Cache-Control": "no-store"})


def caller_router() -> Router:
    """Returns the routes of this module."""
    return Router("/", route_handlers=[get_auth, get_caller])


def _scopes(caller: Caller) -> list[str]:
    known = {*KEY_SCOPES, OPERATOR}
    return sorted(
        {scope for scope in known if caller.may(scope)}.union(*(IMPLIED.get(one, ()) for one in caller.scopes))
    )
