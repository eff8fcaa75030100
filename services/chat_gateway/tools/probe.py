"""Tests a tool server: connects to it and lists its tools."""

import asyncio

from chat_gateway.model.tool_servers import ToolServerTest
from chat_gateway.model.tools import GatewayTool
from chat_gateway.ports import ToolServers
from chat_gateway.tools.credentials import CredentialsRefused
from chat_gateway.tools.server import ServerUnavailable
from chat_gateway.tools.servers import ServerClients
from servicekit.egress import EgressDenied

MAX_TOOLS = 1000
TIMEOUT_SECONDS = 30.0

_AT_A_TIME = 8


class ToolServerProbe:
    """The port `ToolServerTests`. Each test has a connection of its own; a few are made at a time."""

    def __init__(self, servers: ToolServers, clients: ServerClients, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._servers = servers
        self._clients = clients
        self._timeout = timeout
        self._places = asyncio.Semaphore(_AT_A_TIME)

    async def test(self, project: str, tool_server_id: str) -> ToolServerTest:
        try:
            async with asyncio.timeout(self._timeout), self._places:
                return await self._test(project, tool_server_id)
        except TimeoutError:
            return ToolServerTest((), f"did not answer within {self._timeout:g} s")
        except EgressDenied as error:
            return ToolServerTest((), error.message)
        except (ServerUnavailable, CredentialsRefused) as error:
            return ToolServerTest((), str(error))

    async def _test(self, project: str, tool_server_id: str) -> ToolServerTest:
        server = await self._servers.read(project, tool_server_id)
        client, credentials = self._clients.alone(server)
        try:
            await credentials.headers()
            offer = await client.offer()
        finally:
            await client.close()
        tools = tuple(
            GatewayTool(tool.name, tool.description, tool.parameters, server.id, idempotent=tool.idempotent)
            for tool in offer.tools[:MAX_TOOLS]
        )
        return ToolServerTest(tools, left_out=offer.left_out + len(offer.tools) - len(tools))
