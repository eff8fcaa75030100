"""Metrics of tools, in OpenTelemetry's words where it has them (GenAI semantic conventions)."""

from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram

from chat_gateway.model.tools import ToolOutcome

MAX_SERVERS = 100
"""Tool servers that have a label of their own; projects name theirs as they like, so later ones count as `other`."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class ToolMetrics:
    """`gen_ai.execute_tool.duration` in seconds, by tool server and outcome."""

    def __init__(self, open_clients: Callable[[], float], registry: CollectorRegistry = REGISTRY) -> None:
        self._seconds = Histogram(
            "gen_ai_execute_tool_duration_seconds",
            "Calls of tools of tool servers, by how they ended.",
            ["tool_server", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        Gauge("parley_tool_connections", "Tool servers that are kept connected.", registry=registry).set_function(
            open_clients
        )
        self._servers: set[str] = set()

    def observe(self, server: str, outcome: ToolOutcome, seconds: float) -> None:
        """Records one call."""
        if server not in self._servers:
            if len(self._servers) >= MAX_SERVERS:
                server = "other"
            else:
                self._servers.add(server)
        self._seconds.labels(server, outcome.value).observe(seconds)
