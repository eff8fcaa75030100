"""The cache of tool servers, read from config_svc when turns need them."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.json_format import MessageToDict

from chat_gateway.clients.stubs import CONFIG_SVC, Stubs
from chat_gateway.model.not_found import ToolServerNotFound
from chat_gateway.model.tool_servers import (
    A2aAgent,
    BearerAuth,
    HeaderAuth,
    HttpCall,
    HttpService,
    McpServer,
    OauthClientCredentials,
    ToolServer,
    ToolServerAuth,
)
from contract.reasons import Reason
from parley.config.v1 import tool_server_pb2, tool_server_service_pb2
from servicekit.channels import call
from servicekit.errors import ServiceError
from servicekit.watched_cache import Freshness, WatchedCache

LIMIT = 500
"""The size of the cache; each entry may hold a document of 1 MiB."""

_Key = tuple[str, str]
"""Project and id."""


@dataclass(frozen=True, slots=True)
class ToolServerTimes:
    """In seconds."""

    recheck_after: float = 5.0
    """One that was read longer ago is read again before use."""
    max_age: float = 900.0
    """While config_svc is unreachable, one that was read longer ago is no longer used."""
    unreachable_pause: float = 1.0
    """After a read that found config_svc unreachable, no turn tries again for this long."""


class ToolServerDirectory:
    """The port `ToolServers` over config_svc. `timeout` bounds each read, in seconds."""

    def __init__(
        self,
        stubs: Stubs,
        times: ToolServerTimes,
        *,
        timeout: float,
        limit: int = LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stub = stubs.tool_servers
        self._timeout = timeout
        # There is no watch of tool servers: to the cache, it is always down.
        self._servers: WatchedCache[_Key, ToolServer] = WatchedCache(
            Freshness(
                silence=0.0,
                recheck_after=times.recheck_after,
                max_age=times.max_age,
                unreachable_pause=times.unreachable_pause,
            ),
            peer=CONFIG_SVC,
            absent=lambda key: ToolServerNotFound(key[1]),
            name_of=lambda key, server: key,
            limit=limit,
            clock=clock,
        )

    def __len__(self) -> int:
        return len(self._servers)

    async def get(self, project: str, tool_server_id: str) -> ToolServer:
        key = (project, tool_server_id)
        server = self._servers.fresh(key)
        return server if server is not None else await self._servers.get(key, lambda: self._read(key))

    async def read(self, project: str, tool_server_id: str) -> ToolServer:
        key = (project, tool_server_id)
        return await self._servers.read_once(key, lambda: self._read(key))

    async def close(self) -> None:
        """Cancels running reads."""
        await self._servers.close()

    async def _read(self, key: _Key) -> ToolServer | None:
        request = tool_server_service_pb2.GetToolServerRequest(project=key[0], id=key[1])
        try:
            response = await call(self._stub.GetToolServer, request, timeout=self._timeout, peer=CONFIG_SVC)
        except ServiceError as error:
            if error.reason == Reason.TOOL_SERVER_NOT_FOUND:
                return None
            raise
        return tool_server_from_proto(response.tool_server)


def tool_server_from_proto(server: tool_server_pb2.ToolServer) -> ToolServer:
    """Returns a tool server. A kind of a later release becomes an MCP server without a URL."""
    return ToolServer(
        project=server.project,
        id=server.id,
        uid=server.uid,
        revision=server.revision,
        kind=_kind(server),
        auth=_auth(server.auth),
    )


def _kind(server: tool_server_pb2.ToolServer) -> McpServer | HttpService | A2aAgent:
    match server.WhichOneof("kind"):
        case "http":
            return _http(server.http)
        case "a2a":
            return A2aAgent(server.a2a.url, dict(server.a2a.headers))
    return McpServer(server.mcp.url, dict(server.mcp.headers))


def _http(http: tool_server_pb2.HttpService) -> HttpService:
    return HttpService(
        base_url=http.base_url,
        headers=dict(http.headers),
        openapi=http.openapi,
        calls=tuple(
            HttpCall(
                name=one.name,
                description=one.description,
                method=one.method,
                path=one.path,
                parameters=MessageToDict(one.parameters),
                idempotent=one.idempotent,
            )
            for one in http.calls
        ),
    )


def _auth(auth: tool_server_pb2.ToolServerAuth) -> ToolServerAuth | None:
    match auth.WhichOneof("scheme"):
        case "bearer":
            return BearerAuth(auth.bearer.secret)
        case "header":
            return HeaderAuth(auth.header.name, auth.header.secret)
        case "oauth":
            one = auth.oauth
            return OauthClientCredentials(
                one.token_url, one.client_id, one.client_secret, tuple(one.scopes), one.resource
            )
        case _:
            return None
