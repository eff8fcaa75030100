"""The errors of the contract that several services raise. Reasons are documented in parley.errors.v1.Reason."""

from typing import Final

from contract.reasons import Reason
from servicekit.errors import Code, ServiceError

WATCH_RETRY_SECONDS: Final = 5.0


class SessionAgentMismatch(ServiceError):
    """The session belongs to another agent, or to another incarnation of this agent's id."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.SESSION_AGENT_MISMATCH

    def __init__(self, session_id: str, agent_id: str) -> None:
        super().__init__(
            f"session {session_id!r} belongs to another agent than {agent_id!r}",
            metadata={"session_id": session_id, "agent_id": agent_id},
        )


class TooManyWatches(ServiceError):
    """As many watches of turns are open as `scope` (a session, project or service) may have."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.TOO_MANY_WATCHES

    def __init__(self, scope: str, limit: int) -> None:
        super().__init__(
            f"too many watches of turns are open: at most {limit} (of one {scope})",
            metadata={"scope": scope, "limit": str(limit)},
            retry_after=WATCH_RETRY_SECONDS,
            quota_subject=scope,
        )
