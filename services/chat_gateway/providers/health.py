"""The health of providers, for `/readyz` and metrics."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from chat_gateway.providers.resilient import ResilientProvider


class ProvidersHealth(Collector):
    """Read from the providers on demand, at no cost to calls."""

    def __init__(
        self, providers: Mapping[str, ResilientProvider], registry: CollectorRegistry | None = REGISTRY
    ) -> None:
        self._providers = dict(providers)
        if registry is not None:
            registry.register(self)

    def report(self) -> Mapping[str, str]:
        """Returns for each provider `ok`, or what is wrong with it."""
        return {f"provider:{name}": provider.health for name, provider in self._providers.items()}

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yields the metrics, each by provider."""
        gauges: list[tuple[str, str, Callable[[ResilientProvider], float]]] = [
            ("parley_provider_circuit_state", "0 closed, 1 half-open, 2 open.", lambda one: one.circuit),
            ("parley_provider_calls_running", "Model calls under way.", lambda one: one.running),
            ("parley_provider_keys_set_aside", "Keys that the provider refused lately.", lambda one: one.keys.aside),
        ]
        for name, text, reading in gauges:
            family = GaugeMetricFamily(name, text, labels=["provider"])
            for provider in self._providers.values():
                family.add_metric([provider.name], float(reading(provider)))
            yield family
        retries = CounterMetricFamily(
            "parley_provider_retries", "Model calls that were tried again.", labels=["provider"]
        )
        for provider in self._providers.values():
            retries.add_metric([provider.name], provider.retries)
        yield retries
