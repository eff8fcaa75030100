"""Labels of what is counted of tools are bounded."""

from prometheus_client import CollectorRegistry

from chat_gateway.model.tools import ToolKind, ToolOutcome
from chat_gateway.tools.metrics import MAX_SERVERS, ToolMetrics


def test_what_projects_name_is_bounded_by_kind() -> None:
    registry = CollectorRegistry()
    metrics = ToolMetrics(lambda: 0.0, registry)
    for kind in (ToolKind.SERVER, ToolKind.AGENT):
        for number in range(MAX_SERVERS + 50):
            metrics.observe(kind, f"s{number}", ToolOutcome.OK, 0.1)
    names = {
        (sample.labels["kind"], sample.labels["tool_server"])
        for family in registry.collect()
        for sample in family.samples
        if sample.name.endswith("_count")
    }
    assert len(names) == 2 * (MAX_SERVERS + 1)
    for kind in ("server", "agent"):
        labels = {"kind": kind, "tool_server": "other", "outcome": "ok"}
        assert registry.get_sample_value("gen_ai_execute_tool_duration_seconds_count", labels) == 50
