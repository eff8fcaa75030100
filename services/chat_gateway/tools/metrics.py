"""Metrics of tools, named after OpenTelemetry's GenAI semantic conventions where they apply."""

from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram

from chat_gateway.model.tools import ToolKind, ToolOutcome

MAX_SERVERS = 100
"""Tool servers, and agents, that have a label of their own; projects name theirs, so later ones count as `other`."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class ToolMetrics:
    """Implements `CallMetrics`: `gen_ai.execute_tool.duration` in seconds, by kind, tool server and outcome."""

    def __init__(self, open_clients: Callable[[], float], registry: CollectorRegistry = REGISTRY) -> None:
        self._seconds = Histogram(
            "gen_ai_execute_tool_duration_seconds",
            "Calls of tools: of a tool server, of an agent by its id, of a template's functions.",
            ["kind", "tool_server", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        Gauge("parley_tool_connections", "Tool servers that are kept connected.", registry=registry).set_function(
            open_clients
        )
        self._servers: dict[ToolKind, set[str]] = {kind: set() for kind in ToolKind}
        self._children: dict[tuple[ToolKind, str, ToolOutcome], Histogram] = {}

    def observe(self, kind: ToolKind, server: str, outcome: ToolOutcome, seconds: float) -> None:
        known = self._servers[kind]
        if server not in known:
            if len(known) >= MAX_SERVERS:
                server = "other"
            else:
                known.add(server)
        child = self._children.get((kind, server, outcome))
        if child is None:
            child = self._children[kind, server, outcome] = self._seconds.labels(kind.value, server, outcome.value)
        child.observe(seconds)
