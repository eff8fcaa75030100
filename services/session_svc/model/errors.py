"""The domain errors of session_svc. Reasons are documented in parley.errors.v1.Reason."""

from contract.reasons import Reason
from servicekit.errors import Code, MessageTooLarge, ServiceError


class SessionNotFound(ServiceError):
    """The session does not exist, has expired, or belongs to another user; the caller can't tell which."""

    code = Code.NOT_FOUND
    reason = Reason.SESSION_NOT_FOUND

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session {session_id!r}", metadata={"session_id": session_id})


class SessionAlreadyExists(ServiceError):
    """A session with this id exists."""

    code = Code.ALREADY_EXISTS
    reason = Reason.SESSION_ALREADY_EXISTS

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} already exists", metadata={"session_id": session_id})


class AgentDeleted(ServiceError):
    """The agent's uid is fenced: no further turn starts on it."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.AGENT_DELETED

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"agent {agent_id!r} is deleted", metadata={"agent_id": agent_id})


class SessionBusy(ServiceError):
    """Another turn of the session is running. `retry_after` is when its lease ends, at most 2 s: most end sooner."""

    code = Code.ABORTED
    reason = Reason.SESSION_BUSY

    def __init__(self, session_id: str, retry_after: float) -> None:
        super().__init__(
            f"another turn of session {session_id!r} is running",
            metadata={"session_id": session_id},
            retry_after=min(max(retry_after, 0.1), 2.0),
        )


class TurnQueueFull(ServiceError):
    """The maximum number of turns waits for the session."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.TURN_QUEUE_FULL

    def __init__(self, session_id: str, limit: int, retry_after: float) -> None:
        super().__init__(
            f"{limit} turns wait for session {session_id!r} already",
            metadata={"scope": "session", "limit": str(limit)},
            retry_after=max(retry_after, 0.1),
            quota_subject=f"session:{session_id}",
        )


class RateLimited(ServiceError):
    """The key or agent has reached its limit of turns per minute, or of concurrent turns."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.RATE_LIMITED

    def __init__(self, subject: str, message: str, bound: str, limit: int, retry_after: float, reset: float) -> None:
        scope = subject.partition(":")[0]
        super().__init__(
            f"this {scope} {message}",
            metadata={"scope": scope, "bound": bound, "limit": str(limit), "reset": f"{reset:.3f}"},
            retry_after=max(retry_after, 0.001),
            quota_subject=subject,
        )

    @classmethod
    def by_requests(cls, subject: str, limit: int, retry_after: float, reset: float) -> "RateLimited":
        """Returns the error for the limit per minute; times in seconds."""
        message = f"has begun all of its {limit} turns a minute"
        return cls(subject, message, "requests_per_minute", limit, retry_after, reset)

    @classmethod
    def by_turns(cls, subject: str, limit: int, retry_after: float) -> "RateLimited":
        """Returns the error for the limit of concurrent turns; `retry_after` in seconds."""
        message = f"has all of its {limit} turns under way"
        return cls(subject, message, "concurrent_turns", limit, retry_after, retry_after)


class LimitQueueFull(ServiceError):
    """The maximum number of turns waits for a place in a limit."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.TURN_QUEUE_FULL

    def __init__(self, subject: str, places: int, retry_after: float) -> None:
        scope = subject.partition(":")[0]
        super().__init__(
            f"this {scope} has all of its turns under way, and {places} wait already",
            metadata={"scope": scope, "limit": str(places)},
            retry_after=retry_after,
            quota_subject=subject,
        )


class SessionFull(ServiceError):
    """The session has the maximum number of turns, and its policy is to refuse more."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.SESSION_FULL

    def __init__(self, session_id: str, limit: int) -> None:
        super().__init__(
            f"session {session_id!r} has all of the {limit} turns that it may keep",
            metadata={"session_id": session_id, "limit": str(limit)},
        )


class LeaseLost(ServiceError):
    """The turn lease has expired or belongs to another turn: nothing of the turn was stored."""

    code = Code.ABORTED
    reason = Reason.LEASE_LOST

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"the turn lease of session {session_id!r} is lost: nothing of the turn was stored",
            metadata={"session_id": session_id},
        )


class TurnInterrupted(ServiceError):
    """A later request of the session interrupted the turn: nothing of it was stored."""

    code = Code.ABORTED
    reason = Reason.TURN_INTERRUPTED

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"a later request interrupted this turn of session {session_id!r}: nothing of it was stored",
            metadata={"session_id": session_id},
        )


class TurnCancelled(ServiceError):
    """The turn was cancelled by its user: nothing of it is stored."""

    code = Code.ABORTED
    reason = Reason.TURN_CANCELLED

    def __init__(self, session_id: str) -> None:
        super().__init__(f"this turn of session {session_id!r} was cancelled", metadata={"session_id": session_id})


class TurnGivenUp(ServiceError):
    """Several gateways were lost while they ran the turn: nothing of it is stored."""

    code = Code.ABORTED
    reason = Reason.TURN_GIVEN_UP

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"this turn of session {session_id!r} was given up: several gateways were lost while they ran it",
            metadata={"session_id": session_id},
        )


class ProjectQueueFull(ServiceError):
    """The maximum number of turns of the project is queued."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.TURN_QUEUE_FULL

    def __init__(self, project: str, limit: int) -> None:
        super().__init__(
            f"{limit} turns of project {project!r} are queued already",
            metadata={"scope": "project", "limit": str(limit)},
            retry_after=1.0,
            quota_subject=f"project:{project}",
        )


class ToolChainTooLarge(MessageTooLarge):
    """The chain of tool calls that a turn continues is larger than a window, and can't be cut."""

    def __init__(self) -> None:
        super().__init__("the tool calls and results that this turn continues are larger than a window may be")
        self.metadata = {"code": "context_length_exceeded"}


class SessionPartsFull(ServiceError):
    """The session has the maximum size of images, audio and files. `limit` is in bytes."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.SESSION_FULL

    def __init__(self, session_id: str, limit: int) -> None:
        super().__init__(
            f"session {session_id!r} keeps at most {limit} bytes of images, audio and files",
            metadata={"session_id": session_id, "limit": str(limit)},
        )


class IdempotencyKeyReused(ServiceError):
    """The same request id came with another digest."""

    code = Code.ABORTED
    reason = Reason.IDEMPOTENCY_KEY_REUSED

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request id {request_id!r} was used for another request", metadata={"request_id": request_id})


class InvalidPageToken(ServiceError):
    """The page token is not one of this query."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.INVALID_PAGE_TOKEN

    def __init__(self) -> None:
        super().__init__("page_token: not one that this list call made")


class TurnDamaged(ServiceError):
    """A stored turn is unreadable: it is damaged, or a later release wrote it."""

    code = Code.DATA_LOSS
    reason = Reason.TURN_DAMAGED

    def __init__(self, turn_number: int) -> None:
        super().__init__("a stored turn can't be read", metadata={"turn_number": str(turn_number)})


class SessionDamaged(TurnDamaged):
    """The stored data of a session or its agent is unreadable: a key has the wrong type, or a part is missing."""

    def __init__(self) -> None:
        super().__init__(0)
        self.message = "what is stored of the session can't be read"


class TurnNotFound(ServiceError):
    """The turn has no journal, or its session belongs to another user; the caller can't tell which."""

    code = Code.NOT_FOUND
    reason = Reason.TURN_NOT_FOUND

    def __init__(self, turn_id: str) -> None:
        super().__init__(f"turn {turn_id!r} has no journal", metadata={"turn_id": turn_id})


class StoredTurnNotFound(ServiceError):
    """The session has no such turn."""

    code = Code.NOT_FOUND
    reason = Reason.TURN_NOT_FOUND

    def __init__(self, turn_id: str) -> None:
        super().__init__(f"turn {turn_id!r} is not stored", metadata={"turn_id": turn_id})


class TurnNotLast(ServiceError):
    """The turn is not the last one of its session."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.TURN_NOT_LAST

    def __init__(self, turn_id: str) -> None:
        super().__init__(
            f"turn {turn_id!r} is not the last one of its session: later ones depend on it",
            metadata={"turn_id": turn_id},
        )


class JournalFull(MessageTooLarge):
    """The journal of the turn has reached its maximum size."""

    def __init__(self, turn_id: str, limit: int) -> None:
        super().__init__(f"the journal of turn {turn_id!r} is full", limit=limit)
