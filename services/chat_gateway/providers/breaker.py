"""A circuit breaker: a provider that fails most of its calls is not called for a while."""

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass


class CircuitState(enum.IntEnum):
    """Whether calls go through; the numbers are those of the gauge."""

    CLOSED = 0
    HALF_OPEN = 1
    """One call is let through: it decides."""
    OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerBounds:
    """When the circuit opens, and for how long; times are in seconds."""

    min_failures: int = 20
    """Failures within the window before it can open; 0: it never does."""
    min_share: float = 0.5
    """The share of failures among the calls of the window from which on it opens."""
    window: float = 30.0
    open_time: float = 10.0


class CircuitBreaker:
    """Counts calls in two halves of the window, so that each call costs a comparison and an addition."""

    __slots__ = ("_bounds", "_calls", "_clock", "_failures", "_half_began", "_open_until", "_probing")

    def __init__(self, bounds: BreakerBounds, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._clock = clock
        self._probing = False
        self._open_until: float | None = None
        self._reset()

    @property
    def state(self) -> CircuitState:
        """Whether calls go through now."""
        if self._open_until is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if self._clock() < self._open_until else CircuitState.HALF_OPEN

    @property
    def closed(self) -> bool:
        """Whether all calls go through."""
        return self._open_until is None

    def wait(self) -> float:
        """Returns in how many seconds the next call may be made: 0 where it may now."""
        if self._open_until is None:
            return 0.0
        left = self._open_until - self._clock()
        if left > 0:
            return left
        return 1.0 if self._probing else 0.0

    def begin(self) -> bool:
        """Notes a call that `wait` allows, and returns whether it is the probe. One of the methods below ends it."""
        if self._open_until is None:
            return False
        self._probing = True
        return True

    def succeed(self, probe: bool) -> None:
        """The provider answered, be it with a refusal."""
        if probe:
            self._probing = False
            self._open_until = None
            self._reset()
        elif self._open_until is None:
            self._count(0)

    def fail(self, probe: bool) -> None:
        """It did not."""
        if probe:
            self._probing = False
            self._open_until = self._clock() + self._bounds.open_time
        elif self._open_until is None and self._count(1):
            self._open_until = self._clock() + self._bounds.open_time

    def abandon(self, probe: bool) -> None:
        """The caller gave up before it was known."""
        if probe:
            self._probing = False

    def _reset(self) -> None:
        self._half_began = self._clock()
        self._calls = [0, 0]
        self._failures = [0, 0]

    def _count(self, failed: int) -> bool:
        """Counts a call; returns whether too many have failed."""
        half = self._bounds.window / 2
        passed = self._clock() - self._half_began
        if passed >= half:
            kept = passed < 2 * half
            self._calls = [0, self._calls[0] if kept else 0]
            self._failures = [0, self._failures[0] if kept else 0]
            self._half_began += passed
        self._calls[0] += 1
        if not failed:
            return False
        self._failures[0] += 1
        failures, calls = sum(self._failures), sum(self._calls)
        return 0 < self._bounds.min_failures <= failures and failures >= self._bounds.min_share * calls
