"""The ring of a gateway's own figures."""

from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry, Gauge

from chat_gateway.figures import SAMPLES, Figures
from chat_gateway.metrics import TurnMetrics
from chat_gateway.providers.observed import ModelMetrics
from servicekit.errors import InvalidArgument

START = datetime(2026, 5, 4, tzinfo=UTC)


def test_a_sample_is_what_happened_since_the_one_before() -> None:
    registry = CollectorRegistry()
    turns, models = TurnMetrics(registry), ModelMetrics(registry)
    Gauge("parley_turns_running", "x", registry=registry).set(3)
    Gauge("parley_provider_circuit_state", "x", ["provider"], registry=registry).labels("p").set(2)
    times = iter(START + timedelta(seconds=10 * number) for number in range(9))
    figures = Figures(registry, lambda: next(times))
    for _ in range(4):
        models.observe_first("p", "m", 0.015)
    for error in (InvalidArgument(message="no"), None):
        turns.ended(None, error, 0.01, streamed=True)
    figures.sample()
    figures.sample()
    first, second = figures.samples
    assert (first.turns, dict(first.errors), first.running) == (1, {"invalid_field": 1}, 3)
    assert first.first_token_median_ms == 15.0
    assert first.slow_ms is not None
    assert (second.turns, dict(second.errors), second.median_ms, second.first_token_slow_ms) == (0, {}, None, None)
    assert second.time - first.time == timedelta(seconds=10)
    [provider] = figures.now().providers
    assert (provider.name, provider.circuit) == ("p", 2)


def test_it_holds_an_hour_and_no_more() -> None:
    figures = Figures(CollectorRegistry())
    for _ in range(SAMPLES + 5):
        figures.sample()
    assert len(figures.samples) == SAMPLES
