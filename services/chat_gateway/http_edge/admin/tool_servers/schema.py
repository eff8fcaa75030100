"""Tool servers: JSON to and from protobuf."""

from collections.abc import Mapping
from typing import Any

import msgspec
from google.protobuf import json_format
from msgspec import UNSET, UnsetType

from chat_gateway.http_edge.admin.agents.schema import json_path
from chat_gateway.http_edge.wire.bodies import check_free_form
from chat_gateway.http_edge.wire.times import proto_timestamp
from chat_gateway.model.tool_servers import ToolServerTest
from parley.config.v1 import tool_server_pb2 as pb
from parley.config.v1.tool_server_service_pb2 import ToolServerRevision
from servicekit.errors import InvalidArgument, Violation

MAX_CALLS = 128


class McpServerJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A server that speaks MCP over streamable HTTP. `headers` are no secrets."""

    url: str = ""
    headers: dict[str, str] = {}


class A2aAgentJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent elsewhere that speaks A2A, by where its card is below. `headers` are no secrets."""

    url: str = ""
    headers: dict[str, str] = {}


class HttpCallJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One HTTP call that is a tool; `{name}` in `path` is filled from the arguments, which `parameters` describes."""

    name: str = ""
    description: str = ""
    method: str = ""
    path: str = ""
    parameters: dict[str, Any] = {}
    idempotent: bool = False


class HttpServiceJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A service whose operations are tools: those of an OpenAPI 3 document, or `calls`.

    The document is given as an object or as JSON text, and returned as text.
    """

    base_url: str = ""
    headers: dict[str, str] = {}
    openapi: str | dict[str, Any] = ""
    calls: list[HttpCallJson] = []


class BearerAuthJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`Authorization: Bearer` and the secret of this name."""

    secret: str = ""


class HeaderAuthJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The secret of this name in a header of its own."""

    name: str = ""
    secret: str = ""


class OauthJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """OAuth 2.0 client credentials; `client_secret` is the name of a secret."""

    token_url: str = ""
    client_id: str = ""
    client_secret: str = ""
    scopes: list[str] = []
    resource: str = ""


class ToolServerAuthJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the gateway authenticates to the server: at most one. Secrets are given by name, never by value."""

    bearer: BearerAuthJson | UnsetType | None = UNSET
    header: HeaderAuthJson | UnsetType | None = UNSET
    oauth: OauthJson | UnsetType | None = UNSET


class ToolServerJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A tool server: exactly one of `mcp`, `http` and `a2a`.

    The fields from `object` on are output only and ignored in requests (AIP-203).
    """

    id: str = ""
    name: str | None = ""
    mcp: McpServerJson | UnsetType | None = UNSET
    http: HttpServiceJson | UnsetType | None = UNSET
    a2a: A2aAgentJson | UnsetType | None = UNSET
    auth: ToolServerAuthJson | UnsetType | None = UNSET
    labels: dict[str, str] | None = {}
    etag: str | None = ""
    object: str = "tool_server"
    uid: str | UnsetType = UNSET
    revision: int | UnsetType = UNSET
    create_time: str | UnsetType = UNSET
    update_time: str | UnsetType = UNSET


class ToolServerRevisionJson(msgspec.Struct, kw_only=True):
    """One immutable snapshot of a tool server."""

    revision: int
    create_time: str
    author: str
    comment: str
    changed_fields: list[str]
    tool_server: ToolServerJson
    object: str = "tool_server.revision"


class OfferedToolJson(msgspec.Struct, kw_only=True):
    """A tool that a tool server offers, under its name at the server."""

    name: str
    description: str
    parameters: dict[str, Any]
    idempotent: bool


class ToolServerTestJson(msgspec.Struct, kw_only=True):
    """What came of trying a tool server out: `ok`, or the `problem` that keeps its tools from being had."""

    ok: bool
    problem: str
    tools: list[OfferedToolJson]
    left_out_count: int
    """How many more tools there are."""
    object: str = "tool_server.test"


PATHS: Mapping[str, str] = {
    "name": "display_name",
    "mcp": "mcp",
    "http": "http",
    "a2a": "a2a",
    "auth": "auth",
    "labels": "labels",
}
"""The writable fields of the JSON, and their paths in an update mask."""


def to_tool_server(server: ToolServerJson) -> pb.ToolServer:
    """Returns what a client may write of a tool server. Raises `InvalidArgument`, `MalformedBody`."""
    message = pb.ToolServer(
        id=server.id, display_name=server.name or "", labels=server.labels or {}, etag=server.etag or ""
    )
    if sum(map(bool, (server.mcp, server.http, server.a2a))) > 1:
        raise InvalidArgument([Violation("mcp", "exactly one of mcp, http and a2a is required")])
    if server.mcp:
        message.mcp.CopyFrom(pb.McpServer(url=server.mcp.url, headers=server.mcp.headers))
    if server.http:
        message.http.CopyFrom(_to_http(server.http))
    if server.a2a:
        message.a2a.CopyFrom(pb.A2aAgent(url=server.a2a.url, headers=server.a2a.headers))
    if server.auth:
        message.auth.CopyFrom(_to_auth(server.auth))
    return message


def tool_server_json(message: pb.ToolServer) -> ToolServerJson:
    """Returns a tool server as clients see it."""
    server = ToolServerJson(
        id=message.id,
        name=message.display_name,
        labels=dict(message.labels),
        etag=message.etag,
        uid=message.uid,
        revision=message.revision,
    )
    if message.HasField("mcp"):
        server.mcp = McpServerJson(url=message.mcp.url, headers=dict(message.mcp.headers))
    if message.HasField("http"):
        server.http = _http_json(message.http)
    if message.HasField("a2a"):
        server.a2a = A2aAgentJson(url=message.a2a.url, headers=dict(message.a2a.headers))
    if message.auth.WhichOneof("scheme") is not None:
        server.auth = _auth_json(message.auth)
    if message.HasField("create_time"):
        server.create_time = proto_timestamp(message.create_time)
        server.update_time = proto_timestamp(message.update_time)
    return server


def revision_json(revision: ToolServerRevision) -> ToolServerRevisionJson:
    """Returns a revision as clients see it."""
    return ToolServerRevisionJson(
        revision=revision.tool_server.revision,
        create_time=proto_timestamp(revision.create_time),
        author=revision.author,
        comment=revision.comment,
        changed_fields=[json_path(path) for path in revision.changed_fields],
        tool_server=tool_server_json(revision.tool_server),
    )


def outcome_json(outcome: ToolServerTest) -> ToolServerTestJson:
    """Returns the outcome of a test as clients see it."""
    return ToolServerTestJson(
        ok=not outcome.problem,
        problem=outcome.problem,
        tools=[
            OfferedToolJson(
                name=tool.name,
                description=tool.description,
                parameters=dict(tool.parameters),
                idempotent=tool.idempotent,
            )
            for tool in outcome.tools
        ],
        left_out_count=outcome.left_out,
    )


def _to_http(http: HttpServiceJson) -> pb.HttpService:
    openapi = http.openapi
    if isinstance(openapi, dict):
        check_free_form(openapi, "http.openapi")
        openapi = msgspec.json.encode(openapi).decode()
    message = pb.HttpService(base_url=http.base_url, headers=http.headers, openapi=openapi)
    for index, call in enumerate(http.calls[: MAX_CALLS + 1]):  # one more, and config_svc says that there are too many
        added = message.calls.add(
            name=call.name,
            description=call.description,
            method=call.method,
            path=call.path,
            idempotent=call.idempotent,
        )
        if call.parameters:
            check_free_form(call.parameters, f"http.calls[{index}].parameters")
            added.parameters.update(call.parameters)
    return message


def _to_auth(auth: ToolServerAuthJson) -> pb.ToolServerAuth:
    given = [name for name in auth.__struct_fields__ if getattr(auth, name)]
    if len(given) > 1:
        raise InvalidArgument([Violation("auth", "at most one of bearer, header and oauth may be given")])
    message = pb.ToolServerAuth()
    if auth.bearer:
        message.bearer.CopyFrom(pb.BearerAuth(secret=auth.bearer.secret))
    elif auth.header:
        message.header.CopyFrom(pb.HeaderAuth(name=auth.header.name, secret=auth.header.secret))
    elif auth.oauth:
        message.oauth.CopyFrom(pb.OauthClientCredentials(**msgspec.structs.asdict(auth.oauth)))
    return message


def _http_json(http: pb.HttpService) -> HttpServiceJson:
    return HttpServiceJson(
        base_url=http.base_url,
        headers=dict(http.headers),
        openapi=http.openapi,
        calls=[
            HttpCallJson(
                name=call.name,
                description=call.description,
                method=call.method,
                path=call.path,
                parameters=json_format.MessageToDict(call.parameters),
                idempotent=call.idempotent,
            )
            for call in http.calls
        ],
    )


def _auth_json(auth: pb.ToolServerAuth) -> ToolServerAuthJson:
    match auth.WhichOneof("scheme"):
        case "bearer":
            return ToolServerAuthJson(bearer=BearerAuthJson(secret=auth.bearer.secret))
        case "header":
            return ToolServerAuthJson(header=HeaderAuthJson(name=auth.header.name, secret=auth.header.secret))
        case _:
            one = auth.oauth
            return ToolServerAuthJson(
                oauth=OauthJson(
                    token_url=one.token_url,
                    client_id=one.client_id,
                    client_secret=one.client_secret,
                    scopes=list(one.scopes),
                    resource=one.resource,
                )
            )
