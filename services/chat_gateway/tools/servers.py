"""Selects the client and credentials for a project's tool server."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import TYPE_CHECKING

from chat_gateway.agents.toolbox import ToolCaller
from chat_gateway.model.tool_servers import (
    A2aAgent,
    BearerAuth,
    HeaderAuth,
    HttpService,
    McpServer,
    OauthClientCredentials,
    ToolServer,
)
from chat_gateway.model.tools import ServerTools
from chat_gateway.operator_tool_servers import OperatorToolServer, SecretName
from chat_gateway.ports import ToolServers
from chat_gateway.tools.a2a.client import A2aAgentClient
from chat_gateway.tools.clients import Clients, Key
from chat_gateway.tools.credentials import Credentials, FixedCredentials
from chat_gateway.tools.http_service import HttpServiceClient
from chat_gateway.tools.mcp_client import McpClient, McpTimes
from chat_gateway.tools.oauth import OauthCredentials
from chat_gateway.tools.secrets import OPERATOR, SecretFiles, SecretUnavailable, redaction_of
from chat_gateway.tools.server import ServerClient, ServerUnavailable
from servicekit.egress_http import GuardedClient

if TYPE_CHECKING:
    from chat_gateway.tools.mcp_session import Streams


class ServerClients:
    """Finds the client of what an agent config names."""

    def __init__(
        self,
        servers: ToolServers,
        operators: Mapping[str, OperatorToolServer],
        secrets: SecretFiles,
        http: GuardedClient,
        operator_http: GuardedClient,
        clients: Clients,
        times: McpTimes,
    ) -> None:
        """`operator_http` may go wherever the operator's own servers are, beside what projects' may."""
        self._operators = operators
        self._operator_http = operator_http
        self._servers = servers
        self._secrets = secrets
        self._http = http
        self.clients = clients
        self._times = times

    async def use(self, named: ServerTools, caller: ToolCaller) -> AbstractAsyncContextManager[ServerClient]:
        """Returns the client, for as long as it is entered.

        Raises `ServerUnavailable`, and what reading the tool server raises.
        """
        if named.operator_tool_server:
            return self._use_operators(named, caller)
        server = await self._servers.get(caller.project, named.tool_server)
        token = caller.user_token if named.forward_user_token else ""
        try:
            credentials = self._credentials(server, token, self._http)
        except SecretUnavailable as error:
            raise ServerUnavailable(str(error)) from None
        key: Key = (server.project, server.uid, server.revision, _digest(credentials.secrets()))
        return self.clients.use(key, self._maker(server, credentials, self._http))

    def alone(self, server: ToolServer) -> tuple[ServerClient, Credentials]:
        """Returns a new client, which the caller closes, and how it authenticates.

        Raises `ServerUnavailable`.
        """
        try:
            credentials = self._credentials(server, "", self._http)
        except SecretUnavailable as error:
            raise ServerUnavailable(str(error)) from None
        return self._maker(server, credentials, self._http)(), credentials

    def _use_operators(self, named: ServerTools, caller: ToolCaller) -> AbstractAsyncContextManager[ServerClient]:
        name = named.operator_tool_server
        server = self._operators.get(name)
        if server is None:
            raise ServerUnavailable("is not one of this gateway's")
        token = caller.user_token if named.forward_user_token else ""
        try:
            if server.command:
                if token:
                    raise ServerUnavailable("is a command, which can't be given the user's token")
                return self._use_command(name, server)
            auth = server.auth.scheme() if server.auth is not None else None
            described = ToolServer(OPERATOR, name, name, 0, McpServer(server.url, server.headers), auth)
            credentials = self._credentials(described, token, self._operator_http)
        except SecretUnavailable as error:
            raise ServerUnavailable(str(error)) from None
        key: Key = (OPERATOR, name, _digest(credentials.secrets()))
        return self.clients.use(key, self._maker(described, credentials, self._operator_http))

    def _use_command(self, name: str, server: OperatorToolServer) -> AbstractAsyncContextManager[ServerClient]:
        secrets = {
            variable: self._secrets.read(OPERATOR, given.secret)
            for variable, given in server.env.items()
            if isinstance(given, SecretName)
        }
        literals = {variable: given for variable, given in server.env.items() if isinstance(given, str)}
        credentials = FixedCredentials({}, tuple(secrets.values()))

        def streams(sdk: ModuleType) -> "Streams":
            # Beside the SDK, which is there by now.
            from chat_gateway.tools.stdio import Command, stdio_streams

            command = Command(server.command, server.args, {**literals, **secrets}, server.cwd)
            return stdio_streams(name, command, redaction_of(credentials.secrets()))

        key: Key = (OPERATOR, name, _digest(credentials.secrets()))
        return self.clients.use(key, lambda: McpClient(name, streams, credentials, self._times, paced=True))

    def _credentials(self, server: ToolServer, user_token: str, http: GuardedClient) -> Credentials:
        headers: dict[str, str] = {}
        secrets: tuple[str, ...] = ()
        match server.auth:
            case BearerAuth(secret=name):
                secrets = (self._secrets.read(server.project, name),)
                headers["Authorization"] = f"Bearer {secrets[0]}"
            case HeaderAuth(name=header, secret=name):
                secrets = (self._secrets.read(server.project, name),)
                headers[header] = secrets[0]
            case OauthClientCredentials(client_secret=name):
                if user_token:
                    raise ServerUnavailable("can't have the user's token and one of OAuth at the same time")
                return OauthCredentials(server.auth, self._secrets.read(server.project, name), http)
        if user_token:
            headers["Authorization"] = f"Bearer {user_token}"
            secrets = (*secrets, user_token)
        return FixedCredentials(headers, secrets)

    def _maker(self, server: ToolServer, credentials: Credentials, http: GuardedClient) -> Callable[[], ServerClient]:
        kind = server.kind
        match kind:
            case McpServer():

                def streams(sdk: ModuleType) -> "Streams":
                    made: Streams = sdk.http_streams(http, kind.url, kind.headers, credentials)
                    return made

                return lambda: McpClient(f"{server.project}/{server.id}", streams, credentials, self._times)
            case HttpService():
                return lambda: HttpServiceClient(kind, http, credentials)
            case A2aAgent():
                times = self._times
                return lambda: A2aAgentClient(
                    kind, server.id, http, credentials, card_ttl=times.fresh, card_timeout=times.listing
                )


def _digest(secrets: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(secrets).encode()).hexdigest()
