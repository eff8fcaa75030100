"""Metrics of the last hour of this process: a ring of samples, independent of other systems."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry

INTERVAL_SECONDS: Final = 10.0
SAMPLES: Final = 360
"""An hour of them."""

_TURNS = "parley_turns_total"
_SECONDS = "parley_turn_duration_seconds_bucket"
_FIRST = "gen_ai_client_operation_time_to_first_chunk_seconds_bucket"
_GAUGES = {"parley_turns_running": "running", "parley_turns_queued": "queued", "parley_instances": "instances"}
_CIRCUIT = "parley_provider_circuit_state"
_CALLS = "parley_provider_calls_running"
_RETRIES = "parley_provider_retries_total"
_NAMES = (_TURNS, _SECONDS, _FIRST, *_GAUGES, _CIRCUIT, _CALLS, _RETRIES)
_GOOD = frozenset({"committed", "replayed", "stateless", "cancelled"})

Buckets = Mapping[float, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened in the interval before `time`. Durations are in milliseconds, None without measurements."""

    time: datetime
    turns: int
    """Turns that ended with any outcome."""
    errors: Mapping[str, int]
    """Failed turns by reason, in lower case."""
    median_ms: float | None
    slow_ms: float | None
    """The 95th percentile."""
    first_token_median_ms: float | None
    first_token_slow_ms: float | None
    running: int
    """Turns that use a model, at that time."""
    queued: int
    instances: int


@dataclass(frozen=True, slots=True)
class ProviderFigures:
    """One provider of models as this process sees it."""

    name: str
    circuit: int
    """0 closed, 1 half-open, 2 open."""
    running: int
    retries: int


@dataclass(frozen=True, slots=True)
class FiguresNow:
    """The current state of this process; providers are sorted by name."""

    providers: Sequence[ProviderFigures]
    running: int
    queued: int
    instances: int


@dataclass(slots=True)
class _Reading:
    outcomes: dict[str, float] = field(default_factory=dict)
    seconds: dict[float, float] = field(default_factory=dict)
    first: dict[float, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    providers: dict[str, dict[str, float]] = field(default_factory=dict)

    def held(self) -> dict[str, int]:
        return {name: int(self.gauges.get(gauge, 0)) for gauge, name in _GAUGES.items()}


class Figures:
    """Reads this process's metrics every 10 s, at no cost to turns."""

    def __init__(self, registry: CollectorRegistry = REGISTRY, now: Callable[[], datetime] | None = None) -> None:
        self._registry = registry
        self._clock = now or (lambda: datetime.now(UTC))
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._before = self._read()
        self.start_time = self._clock()

    @property
    def samples(self) -> Sequence[Sample]:
        """The samples of the last hour, oldest first."""
        return tuple(self._samples)

    def now(self) -> "FiguresNow":
        """Returns the current state."""
        reading = self._read()
        return FiguresNow(
            providers=[
                ProviderFigures(name, int(one.get(_CIRCUIT, 0)), int(one.get(_CALLS, 0)), int(one.get(_RETRIES, 0)))
                for name, one in sorted(reading.providers.items())
            ],
            **reading.held(),
        )

    def sample(self) -> None:
        """Adds what happened since the sample before."""
        before, after = self._before, self._read()
        self._before = after
        ended = {name: int(count - before.outcomes.get(name, 0)) for name, count in after.outcomes.items()}
        self._samples.append(
            Sample(
                time=self._clock(),
                turns=sum(ended.values()),
                errors={name: count for name, count in ended.items() if count and name not in _GOOD},
                median_ms=_quantile_ms(0.5, before.seconds, after.seconds),
                slow_ms=_quantile_ms(0.95, before.seconds, after.seconds),
                first_token_median_ms=_quantile_ms(0.5, before.first, after.first),
                first_token_slow_ms=_quantile_ms(0.95, before.first, after.first),
                **after.held(),
            )
        )

    async def follow(self) -> None:
        """Samples for ever; meant to be a background task."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            self.sample()

    def _read(self) -> _Reading:
        reading = _Reading()
        for family in self._registry.restricted_registry(_NAMES).collect():
            for one in family.samples:
                if one.name == _TURNS:
                    reading.outcomes[one.labels["outcome"]] = one.value
                elif one.name in (_SECONDS, _FIRST):
                    buckets = reading.seconds if one.name == _SECONDS else reading.first
                    bound = float(one.labels["le"])
                    buckets[bound] = buckets.get(bound, 0) + one.value
                elif one.name in _GAUGES:
                    reading.gauges[one.name] = one.value
                elif "provider" in one.labels:
                    reading.providers.setdefault(one.labels["provider"], {})[one.name] = one.value
        return reading


def _quantile_ms(share: float, before: Buckets, after: Buckets) -> float | None:
    """Interpolated like Prometheus' histogram_quantile: values beyond the last bound count as that bound."""
    bounds = sorted(after)
    counts = [after[bound] - before.get(bound, 0.0) for bound in bounds]
    if not counts or counts[-1] <= 0:
        return None
    rank, lower, below = share * counts[-1], 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= rank:
            if math.isinf(bound):
                break
            inside = (rank - below) / (count - below) if count > below else 1.0
            return round((lower + (bound - lower) * inside) * 1000, 2)
        lower, below = bound, count
    return round(lower * 1000, 2)
