"""What a run of the history checker writes down, for the checker to judge afterwards."""

from dataclasses import dataclass, field
from enum import StrEnum


class Ending(StrEnum):
    """What one attempt told its caller."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """With an error that says that nothing of the turn was stored."""
    UNKNOWN = "unknown"
    """The connection was lost, the caller left, or the error leaves open whether the turn was stored."""


DEFINITE = frozenset(
    {
        "session_busy",
        "lease_lost",
        "turn_interrupted",
        "turn_queue_full",
        "provider_unavailable",
        "provider_timeout",
        "provider_bad_response",
        "provider_rejected",
    }
)
"""Reasons that promise that nothing was stored."""

UNDECIDED = frozenset({"peer_unavailable", "deadline_exceeded", "draining"})
"""Reasons that may follow a commit whose reply was lost. Any reason in neither set is an anomaly by itself."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request and what came of it. Times are `time.monotonic()`, as everywhere here."""

    gateway: int
    began: float
    ended: float
    ending: Ending
    detail: str = ""
    """The error's reason, or how the connection ended."""
    answer: str = ""
    replayed: bool = False
    said: str = ""
    """The error's message."""


@dataclass(slots=True)
class Operation:
    """One turn that a client wanted: tried once, or, with an idempotency key, until the outcome is known."""

    id: str
    session: str
    texts: tuple[str, ...]
    """The user messages, each of them unique in the whole run."""
    key: str = ""
    busy: str = "wait"
    streamed: bool = False
    edge: str = "http"
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def acknowledgement(self) -> Attempt | None:
        """The first attempt that was acknowledged."""
        return next((attempt for attempt in self.attempts if attempt.ending is Ending.ACKNOWLEDGED), None)

    @property
    def ending(self) -> Ending:
        """What the client knows in the end: refused only if every attempt was."""
        if self.acknowledgement is not None:
            return Ending.ACKNOWLEDGED
        if self.attempts and all(attempt.ending is Ending.REFUSED for attempt in self.attempts):
            return Ending.REFUSED
        return Ending.UNKNOWN


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the model: its answer, unique in the whole run, and the texts that it was sent."""

    answer: str
    saw: tuple[str, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, as it was made."""

    kind: str
    target: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message."""

    role: str
    text: str


@dataclass(slots=True)
class History:
    """A whole run."""

    window: int
    """`max_messages` of the agent."""
    operations: list[Operation] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    stored: dict[str, list[Message]] = field(default_factory=dict)
    """By session, oldest first; read when everything was healed and quiet."""
    stuck: dict[str, str] = field(default_factory=dict)
    """Sessions that took no turn within a lease of the last fault, with what they said."""
    unrecovered: list[str] = field(default_factory=list)
    """Parts that did not come back."""
    quiet_since: float = float("inf")
    """When every fault was healed and no client ran: from here on only known keys are repeated."""
