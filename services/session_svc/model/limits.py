"""Values of limits on turns. Times are milliseconds by the store's clock."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TurnLimit:
    """A limit on the turns of `subject`: begun per minute, and concurrent; 0 for none. With `wait` a turn waits for a
    place among the concurrent ones; otherwise it is refused.
    """

    subject: str
    requests_per_minute: int = 0
    concurrent_turns: int = 0
    wait: bool = False


@dataclass(frozen=True, slots=True)
class LimitState:
    """How many turns may begin now, and in how many milliseconds all of a minute's may."""

    subject: str
    requests_per_minute: int
    remaining: int
    reset_ms: int


@dataclass(frozen=True, slots=True)
class LimitedTurn:
    """A turn that counts in limits."""

    project: str
    turn_id: str
    limits: tuple[TurnLimit, ...]


@dataclass(frozen=True, slots=True)
class LimitTaken:
    """The turn counts in all its limits, and holds its places; `now_ms` is the store's time."""

    states: tuple[LimitState, ...]
    now_ms: int


@dataclass(frozen=True, slots=True)
class LimitWait:
    """The turn counts, and waits for a place. Retry when woken, and after `check_in_ms` at the latest."""

    check_in_ms: int


@dataclass(frozen=True, slots=True)
class LimitTimes:
    """A place is held for `hold_ms`, longer than a lease. A waiter that does not retry within `stand_ms` is dropped. At
    most `places` turns wait for one limit.
    """

    hold_ms: int = 17_000
    stand_ms: int = 4_000
    places: int = 256


@dataclass(frozen=True, slots=True)
class JournalBounds:
    """How long a journal is kept behind its turn's end, and the most bytes that those of one session may have."""

    keep_ms: int = 5 * 60 * 1000
    max_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PickupBounds:
    """How turns of lost gateways are taken over. Their session waits for that for `wait_ms` after the lease, or
    `queue_ms` for a queued turn; a turn that has lost `max_lost` gateways is given up. A project has at most `queued`
    queued turns.
    """

    wait_ms: int = 60_000
    queue_ms: int = 60 * 60 * 1000
    max_lost: int = 3
    queued: int = 1000
