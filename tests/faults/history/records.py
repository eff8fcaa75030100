"""What a run of the history checker writes down, for the checker to judge afterwards."""

from collections import Counter
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
        "provider_rate_limited",
        "provider_misconfigured",
        "turn_given_up",
    }
)
"""Reasons that promise that nothing was stored."""

GONE = frozenset({"agent_not_found", "agent_deleted", "session_agent_mismatch"})
"""As definite, where the agent is deleted and made again while turns are run on it."""

UNDECIDED = frozenset({"peer_unavailable", "deadline_exceeded", "draining", "turn_handed_over"})
"""Reasons that may follow a commit whose reply was lost. Any reason in neither set is an anomaly by itself."""


DECIDED_ALREADY = "approval_unknown"
"""As definite, where calls were decided on that waited no more by then."""

CANCELLED = "turn_cancelled"
"""As definite, where the turn was cancelled by whoever submitted it."""

MISMATCH = "history_mismatch"
"""As definite, where a transcript was sent: the session's history was another one by then."""


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message."""

    role: str
    text: str
    calls: tuple[str, ...] = ()
    """The ids of the tool calls that it asks for."""
    call_id: str = ""
    """The call that it is the result of."""


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
    transcript: tuple[Message, ...] = ()
    """What is sent before them: the session's whole history, as its caller read it. Empty: the new messages alone."""
    key: str = ""
    busy: str = "wait"
    streamed: bool = False
    edge: str = "http"
    agent: str = "history"
    finish: bool = False
    """`on_disconnect: finish`."""
    background: bool = False
    """Whether it is submitted, and then looked at until it has ended."""
    cancel_after: float | None = None
    """How many seconds after it was submitted it is cancelled."""
    submitted: list[str] = field(default_factory=list)
    """The ids of completions that its submissions were answered with."""
    approvals: tuple[tuple[str, bool], ...] = ()
    """What it says of calls that wait for an approval: their ids, and whether they are approved."""
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
class Removal:
    """A deletion of one session, or of an agent with all its sessions.

    One that was not acknowledged may take effect at any time after it began: it then has no end.
    """

    agent: str
    session: str
    """Empty: every session of the agent."""
    began: float
    ended: float = float("inf")
    acknowledged: bool = False
    renewed: float = float("inf")
    """When the agent's new creation began."""

    def concerns(self, operation: Operation) -> bool:
        """Whether it takes away what the operation stores."""
        return operation.agent == self.agent and self.session in ("", operation.session)


@dataclass(frozen=True, slots=True)
class Listing:
    """The sessions of an agent, as the admin API listed them."""

    agent: str
    began: float
    ended: float
    sessions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the model: its answer, unique in the whole run, and the texts that it was sent."""

    answer: str
    saw: tuple[str, ...]
    at: float
    full: tuple[Message, ...] = ()
    """All that it was sent, calls of tools and their results among it, where there are any."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One call that the tool server carried out: `mark` says which the model asked for, `result` is unique."""

    tool: str
    mark: str
    result: str
    at: float


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, as it was made."""

    kind: str
    target: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Fork:
    """A new session with the history of another, which is used on: no fork is made of a session that may be deleted."""

    id: str
    source: str
    up_to: int
    """The last turn to copy; 0: all."""
    began: float
    ended: float = float("inf")
    """When it was known to be there, or known not to be."""
    ending: Ending = Ending.UNKNOWN
    turns: int = 0
    """How many were copied, as the admin API said when it acknowledged the fork."""


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
    removals: list[Removal] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    forks: list[Fork] = field(default_factory=list)
    brief_agent: str = "brief"
    """The agent whose sessions end when they have been idle for `brief_ttl` seconds."""
    brief_ttl: float = 2.0
    left: list[Operation] = field(default_factory=list)
    """Turns to be finished whose callers left when nothing was broken."""
    idle_since: float = float("inf")
    """From when on no turn ran in any gateway but those that this phase made."""
    executions: list[Execution] = field(default_factory=list)
    tools: dict[str, str] = field(default_factory=dict)
    """By mark: which tool the model called."""
    children: dict[str, list[Message]] = field(default_factory=dict)
    """What is stored of the sessions of agents that were called as tools."""
    abandoned: dict[str, str] = field(default_factory=dict)
    """Turns that are said to run, and that nobody runs, with their sessions."""
    taken_over: Counter[str] = field(default_factory=Counter)
    """Turns that gateways took, by why: as their logs say."""
    quiet_since: float = float("inf")
    """When every fault was healed and no client ran: from here on only known keys are repeated."""
