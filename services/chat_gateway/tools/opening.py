"""Opens the toolboxes, for wiring."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import field

from prometheus_client import REGISTRY, CollectorRegistry

from chat_gateway.operator_tool_servers import OperatorToolServer
from chat_gateway.ports import ToolServers
from chat_gateway.tools.clients import Clients
from chat_gateway.tools.mcp_client import McpTimes
from chat_gateway.tools.metrics import ToolMetrics
from chat_gateway.tools.secrets import SecretFiles
from chat_gateway.tools.servers import ServerClients
from chat_gateway.tools.toolbox import ServerToolboxes
from servicekit.egress import PUBLIC, EgressRules
from servicekit.egress_http import GuardedClient
from servicekit.lifecycle import Background
from servicekit.values import value


@value
class ToolsConfig:
    """Where tools may be, and for how long what is known of them is kept; times in seconds."""

    egress_allow: tuple[str, ...] = (PUBLIC,)
    secrets_dir: str = ""
    connect_timeout: float = 10.0
    list_ttl: float = 60.0
    max_connections: int = 256
    idle_timeout: float = 300.0
    operators: Mapping[str, OperatorToolServer] = field(default_factory=dict)


@asynccontextmanager
async def open_toolboxes(
    config: ToolsConfig, servers: ToolServers, background: Background, registry: CollectorRegistry = REGISTRY
) -> AsyncIterator[ServerToolboxes]:
    """Yields the `Toolboxes` of a gateway. Nothing is imported, connected or started before a turn has tools."""
    rules = EgressRules(config.egress_allow)
    http = GuardedClient(rules, connect_timeout=config.connect_timeout)
    for url in [url for server in config.operators.values() for url in server.urls]:
        rules = rules.with_origin(url)
    operator_http = GuardedClient(rules, connect_timeout=config.connect_timeout)
    clients = Clients(config.max_connections, config.idle_timeout)
    background.keep("tool connections", clients.sweep)
    times = McpTimes(config.connect_timeout, 1.5 * config.connect_timeout, config.list_ttl)
    secrets = SecretFiles(config.secrets_dir)
    found = ServerClients(servers, config.operators, secrets, http, operator_http, clients, times)
    try:
        yield ServerToolboxes(found, ToolMetrics(lambda: len(clients), registry))
    finally:
        await clients.close()
        await http.close()
        await operator_http.close()
