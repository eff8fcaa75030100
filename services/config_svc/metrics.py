"""What config_svc measures besides its calls."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from servicekit.errors import ServiceError

_DELAYS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Metrics:
    """The instruments of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._writes = Counter(
            "parley_config_agent_config_writes",
            "Writes of agent configs by operation and outcome (ok, or the error's reason).",
            ["operation", "outcome"],
            registry=registry,
        )
        self.watches = Gauge("parley_config_watch_streams", "Watch streams open.", registry=registry)
        self.feed_delay = Histogram(
            "parley_config_feed_delay_seconds",
            "From the writing of a change to its reading from the outbox.",
            buckets=_DELAYS,
            registry=registry,
        )
        self.feed_up = Gauge("parley_config_feed_up", "1 while the feed follows the database.", registry=registry)
        self.connections = Gauge(
            "parley_config_database_connections_in_use", "Connections lent out by the pool.", registry=registry
        )
        self.removed = Counter(
            "parley_config_removed_rows", "Rows removed by the sweep, by kind.", ["kind"], registry=registry
        )

    @contextmanager
    def write(self, operation: str) -> Iterator[None]:
        """Counts one write by how the block ends."""
        outcome = "INTERNAL"
        try:
            yield
            outcome = "ok"
        except ServiceError as error:
            outcome = error.reason
            raise
        finally:
            self._writes.labels(operation, outcome).inc()
