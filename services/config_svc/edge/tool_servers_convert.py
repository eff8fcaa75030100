"""Tool servers, between the contract's messages and the domain's values."""

import itertools
from collections.abc import Mapping, Sequence

from config_svc.edge.agents_convert import timestamp
from config_svc.edge.json_objects import object_of, struct
from config_svc.model.outgoing_http import MAX_HEADERS
from config_svc.model.rules import MAX_LABELS
from config_svc.model.tool_server import (
    MAX_CALLS,
    MAX_SCHEMA_BYTES,
    NOT_WRITABLE,
    A2aAgent,
    HttpCall,
    HttpService,
    McpServer,
    ToolServer,
    ToolServerRevision,
    ToolServerSpec,
)
from config_svc.model.tool_server_auth import MAX_SCOPES, BearerAuth, HeaderAuth, OauthClientCredentials, ToolServerAuth
from parley.config.v1 import tool_server_pb2 as pb
from parley.config.v1 import tool_server_service_pb2 as service_pb

_PARTS = ("mcp", "http", "a2a")


def spec_of(server: pb.ToolServer) -> ToolServerSpec:
    """Returns what a caller may write of a tool server, without output-only fields; raises as `object_of`."""
    return ToolServerSpec(
        display_name=server.display_name,
        mcp=McpServer(server.mcp.url, _headers(server.mcp.headers)) if server.HasField("mcp") else None,
        http=_http_of(server.http) if server.HasField("http") else None,
        auth=_auth_of(server.auth),
        labels=dict(itertools.islice(server.labels.items(), MAX_LABELS + 1)),
        a2a=A2aAgent(server.a2a.url, _headers(server.a2a.headers)) if server.HasField("a2a") else None,
    )


def update_paths(request: service_pb.UpdateToolServerRequest) -> Sequence[str]:
    """Returns the paths of the update mask; without one, those of the fields that are set (AIP-134)."""
    if request.update_mask.paths:
        return list(request.update_mask.paths)
    paths = []
    for field, value in request.tool_server.ListFields():
        if field.name in _PARTS:
            paths += [f"{field.name}.{inner.name}" for inner, _ in value.ListFields()]
        elif field.name not in NOT_WRITABLE:
            paths.append(field.name)
    return paths


def to_proto(server: ToolServer) -> pb.ToolServer:
    """Returns the message of one snapshot. One that is not stored (no uid) has neither uid nor etag nor times."""
    spec = server.spec
    message = pb.ToolServer(
        project=server.project,
        id=server.id,
        display_name=spec.display_name,
        labels=spec.labels,
        revision=server.revision,
    )
    if spec.mcp is not None:
        message.mcp.CopyFrom(pb.McpServer(url=spec.mcp.url, headers=spec.mcp.headers))
    if spec.http is not None:
        message.http.CopyFrom(_http_to_proto(spec.http))
    if spec.a2a is not None:
        message.a2a.CopyFrom(pb.A2aAgent(url=spec.a2a.url, headers=spec.a2a.headers))
    _fill_auth(message, spec.auth)
    if server.uid:
        message.uid = server.uid
        message.etag = server.etag
        message.create_time.CopyFrom(timestamp(server.create_time))
        message.update_time.CopyFrom(timestamp(server.update_time))
    return message


def revision_to_proto(server: ToolServer, revision: ToolServerRevision) -> service_pb.ToolServerRevision:
    """Returns the message of a revision of `server`."""
    snapshot = ToolServer(
        server.project,
        server.id,
        server.uid,
        revision.spec,
        revision.number,
        server.create_time,
        revision.create_time,
    )
    return service_pb.ToolServerRevision(
        tool_server=to_proto(snapshot),
        author=revision.author,
        comment=revision.comment,
        create_time=timestamp(revision.create_time),
        changed_fields=revision.changed_fields,
    )


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    # One more than there may be, and there are too many.
    return dict(itertools.islice(headers.items(), MAX_HEADERS + 1))


def _http_of(http: pb.HttpService) -> HttpService:
    return HttpService(
        base_url=http.base_url,
        headers=_headers(http.headers),
        openapi=http.openapi,
        calls=tuple(
            HttpCall(
                name=call.name,
                description=call.description,
                method=call.method,
                path=call.path,
                parameters=object_of(
                    call.parameters, f"tool_server.http.calls[{index}].parameters", maximum=MAX_SCHEMA_BYTES
                ),
                idempotent=call.idempotent,
            )
            for index, call in enumerate(http.calls[: MAX_CALLS + 1])
        ),
    )


def _auth_of(auth: pb.ToolServerAuth) -> ToolServerAuth:
    match auth.WhichOneof("scheme"):
        case "bearer":
            return ToolServerAuth(bearer=BearerAuth(auth.bearer.secret))
        case "header":
            return ToolServerAuth(header=HeaderAuth(auth.header.name, auth.header.secret))
        case "oauth":
            one = auth.oauth
            scopes = tuple(one.scopes[: MAX_SCOPES + 1])
            return ToolServerAuth(
                oauth=OauthClientCredentials(one.token_url, one.client_id, one.client_secret, scopes, one.resource)
            )
        case _:
            return ToolServerAuth()


def _http_to_proto(http: HttpService) -> pb.HttpService:
    message = pb.HttpService(base_url=http.base_url, headers=http.headers, openapi=http.openapi)
    for call in http.calls:
        added = message.calls.add(
            name=call.name,
            description=call.description,
            method=call.method,
            path=call.path,
            idempotent=call.idempotent,
        )
        if call.parameters:
            added.parameters.CopyFrom(struct(call.parameters))
    return message


def _fill_auth(message: pb.ToolServer, auth: ToolServerAuth) -> None:
    if auth.bearer is not None:
        message.auth.bearer.secret = auth.bearer.secret
    elif auth.header is not None:
        message.auth.header.name = auth.header.name
        message.auth.header.secret = auth.header.secret
    elif auth.oauth is not None:
        one = auth.oauth
        message.auth.oauth.CopyFrom(
            pb.OauthClientCredentials(
                token_url=one.token_url,
                client_id=one.client_id,
                client_secret=one.client_secret,
                scopes=one.scopes,
                resource=one.resource,
            )
        )
