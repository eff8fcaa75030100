"""Toolboxes on real servers, for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry

from chat_gateway.agents.toolbox import ToolCaller
from chat_gateway.model.tool_servers import A2aAgent, HttpService, McpServer, ToolServerAuth
from chat_gateway.model.tools import DEFAULT_TOOL_POLICY, ListedTools, ServerTools, ToolPolicy, ToolResult
from chat_gateway.tools.opening import ToolsConfig, open_toolboxes
from chat_gateway.tools.toolbox import ServerToolbox, ServerToolboxes
from servicekit.lifecycle import Background
from tests.doubles.chat_gateway.tool_servers import KnownToolServers

CALLER = ToolCaller("default", "ann", "s-1", "t-1")
LOOPBACK_ALLOWED = ("http://127.0.0.1:*",)


class Room:
    """The room of tools as wiring opens it, its tool servers in memory."""

    def __init__(self, toolboxes: ServerToolboxes, servers: KnownToolServers, registry: CollectorRegistry) -> None:
        self.toolboxes = toolboxes
        self.servers = servers
        self.registry = registry

    @asynccontextmanager
    async def box(
        self, *named: ServerTools, policy: ToolPolicy = DEFAULT_TOOL_POLICY, caller: ToolCaller = CALLER
    ) -> AsyncIterator[ServerToolbox]:
        """Opens the toolbox of a turn."""
        async with self.toolboxes.open(named, policy, caller) as opened:
            yield opened

    async def listed(self, *named: ServerTools, caller: ToolCaller = CALLER) -> ListedTools:
        """Returns the tools of a turn."""
        async with self.box(*named, caller=caller) as box:
            return await box.tools()

    async def call(
        self,
        server: str,
        tool: str,
        arguments: str = "{}",
        *,
        seconds: float = 60,
        caller: ToolCaller = CALLER,
        **named: Any,
    ) -> ToolResult:
        """Calls a tool in a turn of its own; `server` is given by `put`."""
        policy = ToolPolicy(call_timeout=seconds, max_result_bytes=named.pop("max_result_bytes", 64 * 1024))
        async with self.box(ServerTools(server, **named), policy=policy, caller=caller) as box:
            return await box.call(tool, arguments, call_id="call-1")

    def put(
        self, server: str, kind: McpServer | HttpService | A2aAgent | str, auth: ToolServerAuth | None = None
    ) -> None:
        """Stores a tool server; a text is the URL of an MCP server."""
        self.servers.put(server, McpServer(kind) if isinstance(kind, str) else kind, auth)


@asynccontextmanager
async def opened_room(**config: Any) -> AsyncIterator[Room]:
    """Opens a room in which loopback is allowed."""
    settings = replace(ToolsConfig(egress_allow=LOOPBACK_ALLOWED), **config)
    servers, registry = KnownToolServers(), CollectorRegistry()
    async with Background() as background, open_toolboxes(settings, servers, background, registry) as toolboxes:
        yield Room(toolboxes, servers, registry)
