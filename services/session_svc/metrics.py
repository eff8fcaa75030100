"""Prometheus metrics of session_svc."""

import contextlib
from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from servicekit.metrics import DURATION_BUCKETS
from session_svc.model.turn import Begun, Replayed

_WINDOW_BUCKETS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)


class Metrics:
    """The metrics of one process. Labels never contain conversation data."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._add_sessions(registry)
        self._add_turns(registry)
        self._add_background_turns(registry)
        self._add_follower(registry)
        self._add_redis(registry)
        self._begun = self._turns.labels("begun")
        self._committed = self._turns.labels("committed")
        self._aborted = self._turns.labels("aborted")
        self._replayed = self._turns.labels("replayed")
        self.redis_call = self._redis.observe

    def _add_sessions(self, registry: CollectorRegistry) -> None:
        self._created = Counter("parley_sessions_created", "Sessions created.", registry=registry)
        self._deleted = Counter("parley_sessions_deleted", "Sessions deleted.", ["by"], registry=registry)
        self._alive = Gauge("parley_sessions_alive", "Live sessions, estimated by sampling.", registry=registry)
        self._gone = Counter(
            "parley_sessions_gone",
            "Sessions that an index still had after they expired or were deleted.",
            registry=registry,
        )

    def _add_turns(self, registry: CollectorRegistry) -> None:
        self._turns = Counter("parley_session_turns", "Turns by outcome.", ["outcome"], registry=registry)
        self._waits = Histogram(
            "parley_turn_lease_wait_seconds",
            "Time that turns waited for a busy session.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._window = Histogram(
            "parley_turn_window_turns",
            "Turns in the windows returned by BeginTurn.",
            buckets=_WINDOW_BUCKETS,
            registry=registry,
        )
        self._waiting = Gauge(
            "parley_turns_waiting", "Turns waiting in this process for a busy session.", registry=registry
        )

    def _add_follower(self, registry: CollectorRegistry) -> None:
        self._connected = Gauge("parley_follower_connected", "1 while the config feed is followed.", registry=registry)
        self._followed = Gauge(
            "parley_follower_last_message_timestamp_seconds",
            "Time of the last message of the config feed.",
            registry=registry,
        )

    def _add_redis(self, registry: CollectorRegistry) -> None:
        self._redis_up = Gauge("parley_redis_up", "1 while Redis answers.", registry=registry)
        self._redis = Histogram(
            "parley_redis_call_seconds",
            "Duration of round trips to Redis.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._under_way = Gauge("parley_redis_calls_waiting", "Calls waiting for Redis.", registry=registry)
        self._evicts = Gauge(
            "parley_redis_may_evict", "1 while Redis' maxmemory-policy is not noeviction.", registry=registry
        )
        self._damaged = Counter(
            "parley_redis_damaged_keys",
            "Keys of the wrong type that were moved aside, by kind, and reads of damaged sessions.",
            ["kind"],
            registry=registry,
        )

    def _add_background_turns(self, registry: CollectorRegistry) -> None:
        self._handed_over = Counter(
            "parley_session_turns_handed_over",
            "Turns that were queued, or released by their gateway for another one.",
            ["kind"],
            registry=registry,
        )
        self._claimed = Counter(
            "parley_session_turns_claimed",
            "Turns that a gateway took from the queue (first) or took over (again).",
            ["kind"],
            registry=registry,
        )
        self._queued = Gauge(
            "parley_session_turns_queued", "Background turns that have not run yet, across projects.", registry=registry
        )
        for kind in ("queued", "released"):  # exported from the start, or `increase` would miss the first one
            self._handed_over.labels(kind)
        for kind in ("first", "again"):
            self._claimed.labels(kind)

    def begun(self, outcome: Begun | Replayed) -> None:
        """Counts a turn that was begun or replayed."""
        if isinstance(outcome, Replayed):
            self._replayed.inc()
            return
        self._begun.inc()
        self._window.observe(len(outcome.window))
        if outcome.created:
            self._created.inc()

    def committed(self) -> None:
        """Counts a committed turn."""
        self._committed.inc()

    def aborted(self) -> None:
        """Counts an aborted turn."""
        self._aborted.inc()

    def handed_over(self, *, queued: bool) -> None:
        """Counts a turn that waits for a gateway."""
        self._handed_over.labels("queued" if queued else "released").inc()

    def claimed(self, *, again: bool) -> None:
        """Counts a turn that a gateway took."""
        self._claimed.labels("again" if again else "first").inc()

    def queued_turns(self, queued: Callable[[], int]) -> None:
        """Sets the function that returns the number of queued turns."""
        self._queued.set_function(queued)

    def refused(self, reason: str) -> None:
        """Counts a turn that was refused."""
        self._turns.labels(reason.lower()).inc()

    def waited(self, seconds: float) -> None:
        """Measures a wait for a busy session that ended with the lease."""
        self._waits.observe(seconds)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts a call as waiting while open."""
        self._waiting.inc()
        try:
            yield
        finally:
            self._waiting.dec()

    def created(self) -> None:
        """Counts a session created without a turn."""
        self._created.inc()

    def deleted(self, count: int, by: str) -> None:
        """Counts sessions deleted, by what."""
        self._deleted.labels(by).inc(count)

    def sampled(self, alive: float, gone: int) -> None:
        """Records the estimated number of live sessions, and how many more were found to be gone."""
        self._alive.set(alive)
        self._gone.inc(gone)

    def follower(self, connected: bool) -> None:
        """Records whether the config feed is followed."""
        self._connected.set(connected)

    def followed(self, timestamp: float) -> None:
        """Records when the config feed last sent a message."""
        self._followed.set(timestamp)

    def redis_waiting(self, waiting: Callable[[], int]) -> None:
        """Sets the function that returns the number of calls waiting for Redis."""
        self._under_way.set_function(waiting)

    def redis_up(self, up: bool) -> None:
        """Records whether Redis answers."""
        self._redis_up.set(up)

    def damaged(self, kind: str) -> None:
        """Counts a damaged key, or a read of one."""
        self._damaged.labels(kind).inc()

    def redis_evicts(self, evicts: bool) -> None:
        """Records whether Redis may evict keys."""
        self._evicts.set(evicts)
