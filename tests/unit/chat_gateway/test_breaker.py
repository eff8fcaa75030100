"""The circuit breaker, by a clock of its own."""

from chat_gateway.providers.breaker import BreakerBounds, CircuitBreaker, CircuitState


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock, **bounds: float) -> CircuitBreaker:
    return CircuitBreaker(BreakerBounds(min_failures=4, window=30.0, open_time=10.0), clock=clock)


def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.fail(breaker.begin())


def test_it_opens_when_enough_calls_and_half_of_them_failed() -> None:
    clock = Clock()
    breaker = make(clock)
    for _ in range(5):
        breaker.succeed(breaker.begin())
    fail(breaker, 4)
    assert breaker.closed, "four of nine"
    fail(breaker, 1)
    assert (breaker.state, breaker.wait()) == (CircuitState.OPEN, 10.0)


def test_failures_of_long_ago_do_not_count() -> None:
    clock = Clock()
    breaker = make(clock)
    fail(breaker, 3)
    clock.now += 15
    breaker.succeed(breaker.begin())
    fail(breaker, 1)
    assert not breaker.closed, "the earlier half of the window counts"
    breaker = make(clock)
    fail(breaker, 3)
    clock.now += 31
    fail(breaker, 3)
    assert breaker.closed


def test_after_a_while_one_call_decides() -> None:
    clock = Clock()
    breaker = make(clock)
    late = breaker.begin()
    fail(breaker, 4)
    clock.now += 10
    assert (breaker.state, breaker.wait()) == (CircuitState.HALF_OPEN, 0.0)
    probe = breaker.begin()
    assert breaker.wait() == 1.0, "one at a time"
    breaker.succeed(late)
    assert not breaker.closed, "what began before it opened does not decide"
    breaker.fail(probe)
    assert breaker.wait() == 10.0
    clock.now += 10
    breaker.abandon(breaker.begin())
    assert breaker.wait() == 0.0, "a caller that left decided nothing"
    breaker.succeed(breaker.begin())
    assert breaker.state is CircuitState.CLOSED
    fail(breaker, 3)
    assert breaker.closed, "it counts from the beginning"


def test_without_a_bound_it_never_opens() -> None:
    breaker = CircuitBreaker(BreakerBounds(min_failures=0))
    fail(breaker, 100)
    assert breaker.closed
