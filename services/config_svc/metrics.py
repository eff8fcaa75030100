"""Prometheus metrics of config_svc, besides those of calls."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from servicekit.errors import ServiceError

_DELAYS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Metrics:
    """The metrics of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._add_writes(registry)
        self._add_access(registry)
        self._add_feed(registry)
        self.connections = Gauge(
            "parley_config_database_connections_in_use", "Connections of the pool in use.", registry=registry
        )
        self.removed = Counter(
            "parley_config_removed_rows", "Rows removed by the sweep, by kind.", ["kind"], registry=registry
        )

    def _add_writes(self, registry: CollectorRegistry) -> None:
        self._writes = Counter(
            "parley_config_agent_config_writes",
            "Writes of agent configs by operation and outcome (ok, or the error's reason).",
            ["operation", "outcome"],
            registry=registry,
        )
        self._access_writes = Counter(
            "parley_config_access_writes",
            "Writes of projects and API keys by operation and outcome (ok, or the error's reason).",
            ["operation", "outcome"],
            registry=registry,
        )
        self._tool_server_writes = Counter(
            "parley_config_tool_server_writes",
            "Writes of tool servers by operation and outcome (ok, or the error's reason).",
            ["operation", "outcome"],
            registry=registry,
        )

    def _add_access(self, registry: CollectorRegistry) -> None:
        self.key_checks = Counter(
            "parley_config_api_key_checks",
            "Checks of API keys by outcome (ok, malformed, unknown, ended).",
            ["outcome"],
            registry=registry,
        )
        self.access_watches = Gauge("parley_config_access_watch_streams", "Access watches open.", registry=registry)
        self.access_up = Gauge(
            "parley_config_access_feed_up", "1 while revocations are followed in the database.", registry=registry
        )
        self.access_delay = Histogram(
            "parley_config_access_feed_delay_seconds",
            "Delay from writing the end of an API key to reading it from the outbox.",
            buckets=_DELAYS,
            registry=registry,
        )

    def _add_feed(self, registry: CollectorRegistry) -> None:
        self.watches = Gauge("parley_config_watch_streams", "Watch streams open.", registry=registry)
        self.feed_delay = Histogram(
            "parley_config_feed_delay_seconds",
            "Delay from writing a change to reading it from the outbox.",
            buckets=_DELAYS,
            registry=registry,
        )
        self.feed_up = Gauge("parley_config_feed_up", "1 while the feed follows the database.", registry=registry)

    def write(self, operation: str) -> AbstractContextManager[None]:
        """Counts one write of agent configs by how the block ends."""
        return _counted(self._writes, operation)

    def tool_server_write(self, operation: str) -> AbstractContextManager[None]:
        """Counts one write of tool servers by how the block ends."""
        return _counted(self._tool_server_writes, operation)

    def access_write(self, operation: str) -> AbstractContextManager[None]:
        """Counts one write of projects or API keys by how the block ends."""
        return _counted(self._access_writes, operation)


@contextmanager
def _counted(writes: Counter, operation: str) -> Iterator[None]:
    outcome = "INTERNAL"
    try:
        yield
        outcome = "ok"
    except ServiceError as error:
        outcome = error.reason
        raise
    finally:
        writes.labels(operation, outcome).inc()
