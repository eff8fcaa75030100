"""One reading of one replica's metrics, and what two readings say of the time between them."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

TURNS = "parley_turn_duration_seconds"
CALLS = "rpc_server_call_duration_seconds"
CIRCUITS = "parley_provider_circuit_state"
FIRST_TOKEN = "gen_ai_client_operation_time_to_first_chunk_seconds"
LAG = "parley_event_loop_lag_seconds"
_GOOD_OUTCOMES = frozenset({"committed", "replayed", "stateless", "cancelled"})
_SERVER_FAULTS = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED"})

Buckets = Mapping[float, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters, gauges and histograms of one process at one moment (`time`: seconds of a steady clock)."""

    time: float
    values: Mapping[str, float]
    """By name, all label sets added up."""
    outcomes: Mapping[str, float]
    """Turns by how they ended."""
    call_codes: Mapping[str, float]
    """Inbound calls by their status."""
    buckets: Mapping[str, Buckets] = field(repr=False)
    """Histograms by name: cumulative counts by upper bound."""
    open_circuits: float | None = None
    """Providers whose circuit is not closed."""

    @property
    def kind(self) -> str:
        """Which service it is."""
        for name, kind in _KINDS.items():
            if name in self.values:
                return kind
        return "?"


@dataclass(frozen=True, slots=True)
class Activity:
    """What one replica did between two readings: rates a second, times in seconds; None if the service has no such."""

    kind: str
    rate: float
    """Turns of a gateway; calls of the others."""
    errors: float
    median: float | None
    slow: float | None
    """The 95th percentile."""
    running: float | None
    waiting: float | None
    instances: float | None
    sessions: float | None
    """Sessions made a second."""
    lag: float | None
    """Delay of the event loop, 95th percentile."""
    memory: float | None
    """Bytes."""
    circuits: float | None = None
    """Providers whose circuit is not closed."""
    first_token: float | None = None
    """Of streamed calls of models, median."""


def parse(text: str, time: float) -> Reading:
    """Reads Prometheus' text form. Raises ValueError for what is not."""
    values: dict[str, float] = defaultdict(float)
    outcomes: dict[str, float] = defaultdict(float)
    codes: dict[str, float] = defaultdict(float)
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    circuits: list[float] = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] += sample.value
            if sample.name.endswith("_bucket"):
                buckets[family.name][float(sample.labels["le"])] += sample.value
            elif sample.name == CIRCUITS:
                circuits.append(sample.value)
            elif sample.name == "parley_turns_total":
                outcomes[sample.labels["outcome"]] += sample.value
            elif sample.name == f"{CALLS}_count":
                codes[sample.labels["rpc_response_status_code"]] += sample.value
    opened = float(sum(state > 0 for state in circuits)) if circuits else None
    return Reading(time, values, outcomes, codes, buckets, opened)


def activity(before: Reading, after: Reading) -> Activity:
    """Returns what happened in between; a process that was restarted in between counts from its start."""
    seconds = max(after.time - before.time, 1e-6)
    gateway = after.kind == "gateway"
    counted = after.outcomes if gateway else after.call_codes
    earlier = before.outcomes if gateway else before.call_codes
    bad = [name for name in counted if (name not in _GOOD_OUTCOMES if gateway else name in _SERVER_FAULTS)]
    timed = TURNS if gateway else CALLS
    return Activity(
        kind=after.kind,
        rate=sum(_grown(earlier, counted, name) for name in counted) / seconds,
        errors=sum(_grown(earlier, counted, name) for name in bad) / seconds,
        median=quantile(0.5, before.buckets.get(timed, {}), after.buckets.get(timed, {})),
        slow=quantile(0.95, before.buckets.get(timed, {}), after.buckets.get(timed, {})),
        running=after.values.get("parley_turns_running"),
        waiting=after.values.get("parley_turns_queued", after.values.get("parley_turns_waiting")),
        instances=after.values.get("parley_instances"),
        sessions=_rate(before, after, "parley_sessions_created_total", seconds),
        lag=quantile(0.95, before.buckets.get(LAG, {}), after.buckets.get(LAG, {})),
        memory=after.values.get("process_resident_memory_bytes"),
        circuits=after.open_circuits,
        first_token=quantile(0.5, before.buckets.get(FIRST_TOKEN, {}), after.buckets.get(FIRST_TOKEN, {})),
    )


def quantile(share: float, before: Buckets, after: Buckets) -> float | None:
    """Returns a bound that `share` of what was observed in between is under, interpolated; None for nothing observed.

    As Prometheus' histogram_quantile: what is beyond the last bound counts as that bound.
    """
    bounds = sorted(after)
    counts = [max(after[bound] - before.get(bound, 0.0), 0.0) for bound in bounds]
    if not counts or not counts[-1]:
        return None
    rank, lower, below = share * counts[-1], 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= rank:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * ((rank - below) / (count - below) if count > below else 1.0)
        lower, below = bound, count
    return lower


def _grown(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float:
    now, then = after.get(name, 0.0), before.get(name, 0.0)
    return now - then if now >= then else now


def _rate(before: Reading, after: Reading, name: str, seconds: float) -> float | None:
    return _grown(before.values, after.values, name) / seconds if name in after.values else None


_KINDS = {
    f"{TURNS}_count": "gateway",
    "parley_sessions_created_total": "session_svc",
    "parley_config_watch_streams": "config_svc",
}
