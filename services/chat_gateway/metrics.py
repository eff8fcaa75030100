"""Turn metrics, named after OpenTelemetry's GenAI semantic conventions where they apply."""

from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from access.key_cache import KeyCache
from chat_gateway.instances import Instances
from chat_gateway.model.turn import TurnOutcome
from chat_gateway.ports import KnownConfigs
from chat_gateway.scheduler import Scheduler
from servicekit.errors import ServiceError

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class PickupMetrics:
    """Counts turns that this gateway took over, or took from the queue, by outcome."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._ended = Counter(
            "parley_turns_taken_over",
            "Turns without a caller that were run here, background turns among them, by how they ended here.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("finished", "failed", "cancelled", "handed_over"):
            self._ended.labels(outcome)  # exported from the start, or a rate would miss the first one
        self._running = Gauge(
            "parley_turns_taken_over_running", "Turns without a caller that run here now.", registry=registry
        )

    def ended(self, outcome: str) -> None:
        """Counts a turn that has ended here."""
        self._ended.labels(outcome).inc()

    def running(self, count: Callable[[], int]) -> None:
        """Sets the function that returns how many are running."""
        self._running.set_function(count)


class PushMetrics:
    """Counts push notifications of A2A by what became of them."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._ended = Counter(
            "parley_push_notifications",
            "Push notifications of A2A tasks, by what became of them after all tries.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("delivered", "failed", "dropped"):
            self._ended.labels(outcome)

    def ended(self, outcome: str) -> None:
        """Counts a notification that is not under way any more."""
        self._ended.labels(outcome).inc()


class TurnMetrics:
    """Counts turns by outcome. Label children are created once."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        turns = Counter("parley_turns", "Turns by outcome.", ["outcome"], registry=registry)
        seconds = Histogram(
            "parley_turn_duration_seconds", "Whole turns.", ["streamed"], buckets=_SECONDS, registry=registry
        )
        self._turns = turns
        self._by_outcome = {name: turns.labels(name) for name in ("committed", "replayed", "stateless", "cancelled")}
        self._seconds = {streamed: seconds.labels(str(streamed).lower()) for streamed in (True, False)}

    def ended(
        self, outcome: TurnOutcome | None, error: BaseException | None, seconds: float, *, streamed: bool
    ) -> None:
        """Counts a turn that ended with an outcome or an error, and its duration in seconds."""
        if isinstance(error, ServiceError):
            self._count(error.reason.lower())
        elif error is not None:
            self._count("cancelled")
        elif outcome is not None:
            self._count("replayed" if outcome.replayed else "committed" if outcome.session_id else "stateless")
        self._seconds[streamed].observe(seconds)

    def _count(self, name: str) -> None:
        # Reasons are an enum, so this stays bounded.
        counter = self._by_outcome.get(name)
        if counter is None:
            counter = self._by_outcome[name] = self._turns.labels(name)
        counter.inc()


def observe_runtime(
    scheduler: Scheduler,
    instances: Instances,
    configs: KnownConfigs,
    turn_streams: Callable[[], int],
    registry: CollectorRegistry = REGISTRY,
) -> None:
    """Registers gauges of this process's state, read on every scrape."""
    readings: list[tuple[str, str, Callable[[], float]]] = [
        ("parley_turns_running", "Turns that use a model now.", lambda: scheduler.load.running),
        ("parley_turns_queued", "Turns that wait for a session or for a slot.", lambda: scheduler.load.queued),
        ("parley_instances", "Agent instances in memory.", lambda: len(instances)),
        ("parley_agent_configs_known", "Agent configs in memory.", lambda: len(configs)),
        ("parley_turn_streams", "Streams to session_svc; without one, each call is an RPC of its own.", turn_streams),
        ("parley_config_watch_up", "1 while the watch of config_svc is up.", lambda: float(configs.watching)),
        ("parley_config_watch_silence_seconds", "Since the watch last spoke.", lambda: configs.silence),
        ("parley_config_watch_lag_seconds", "From the last change's commit to its arrival.", lambda: configs.lag),
    ]
    for name, text, reading in readings:
        Gauge(name, text, registry=registry).set_function(reading)
    registry.register(_InstanceCounters(instances))


def observe_keys(keys: KeyCache, registry: CollectorRegistry = REGISTRY) -> None:
    """Registers gauges of the cache of API keys."""
    readings: list[tuple[str, str, Callable[[], float]]] = [
        ("parley_api_keys_known", "API keys in memory.", lambda: len(keys)),
        ("parley_access_watch_up", "1 while the watch of API keys is up.", lambda: float(keys.watching)),
        ("parley_api_keys_unchecked", "1 while known API keys go on unchecked.", lambda: float(keys.unreachable)),
    ]
    for name, text, reading in readings:
        Gauge(name, text, registry=registry).set_function(reading)


class _InstanceCounters(Collector):
    """The counters of the instance cache, read on every scrape."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances

    def collect(self) -> Iterator[CounterMetricFamily]:
        hits, built, seconds = self._instances.hit_count, self._instances.built_count, self._instances.built_seconds
        yield CounterMetricFamily("parley_instance_cache_hits", "Turns that found their instance.", hits)
        yield CounterMetricFamily("parley_instances_built", "Agent instances built.", built)
        yield CounterMetricFamily("parley_instance_build_seconds", "Time spent on building instances.", seconds)
