"""The domain errors of session_svc. Reasons are documented in parley.errors.v1.Reason."""

from contract.reasons import Reason
from servicekit.errors import Code, MessageTooLarge, ServiceError


class SessionNotFound(ServiceError):
    """No such session, or it has expired, or it is another user's: the caller can't tell which."""

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
    """As many turns wait for the session as may."""

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
    """The key or agent has begun as many turns this minute, or has as many under way, as it may."""

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
        """Returns the refusal of one turn too many a minute; times in seconds."""
        message = f"has begun all of its {limit} turns a minute"
        return cls(subject, message, "requests_per_minute", limit, retry_after, reset)

    @classmethod
    def by_turns(cls, subject: str, limit: int, retry_after: float) -> "RateLimited":
        """Returns the refusal of one turn too many at once; `retry_after` in seconds."""
        message = f"has all of its {limit} turns under way"
        return cls(subject, message, "concurrent_turns", limit, retry_after, retry_after)


class LimitQueueFull(ServiceError):
    """As many turns wait for a place in a limit as may."""

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
    """The session has as many turns as it may keep, and the policy is to refuse more."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.SESSION_FULL

    def __init__(self, session_id: str, limit: int) -> None:
        super().__init__(
            f"session {session_id!r} has all of the {limit} turns that it may keep",
            metadata={"session_id": session_id, "limit": str(limit)},
        )


class LeaseLost(ServiceError):
    """The turn lease ran out or is another's: nothing of the turn was stored."""

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
    """As many turns of the project as may be have yet to run."""

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
    """The tool calls that a turn goes on with are more than a window holds, and none of them may be left out."""

    def __init__(self) -> None:
        super().__init__("the tool calls and results that this turn goes on with are larger than a window may be")
        self.metadata = {"code": "context_length_exceeded"}


class SessionPartsFull(ServiceError):
    """The session keeps as many bytes of images, audio and files as it may. `limit` is in bytes."""

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
    """The page token is not one that this query made."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.INVALID_PAGE_TOKEN

    def __init__(self) -> None:
        super().__init__("page_token: not one that this list call made")


class TurnDamaged(ServiceError):
    """A stored turn can't be read: what is stored is damaged, or a later release wrote it."""

    code = Code.DATA_LOSS
    reason = Reason.TURN_DAMAGED

    def __init__(self, turn_number: int) -> None:
        super().__init__("a stored turn can't be read", metadata={"turn_number": str(turn_number)})


class SessionDamaged(TurnDamaged):
    """What is stored of a session, or of its agent, can't be read: a key is of a wrong type, or a part is gone."""

    def __init__(self) -> None:
        super().__init__(0)
        self.message = "what is stored of the session can't be read"


class TurnNotFound(ServiceError):
    """No journal of such a turn, or the session is another user's: the caller can't tell which."""

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
    """Other turns of the session come after the turn."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.TURN_NOT_LAST

    def __init__(self, turn_id: str) -> None:
        super().__init__(
            f"turn {turn_id!r} is not the last one of its session: later ones stand on it",
            metadata={"turn_id": turn_id},
        )


class JournalFull(MessageTooLarge):
    """The turn has written as much into its journal as it may."""

    def __init__(self, turn_id: str, limit: int) -> None:
        super().__init__(f"the journal of turn {turn_id!r} is full", limit=limit)
