"""The user for whom a turn that is not stored yet is looked up."""

from access.caller import SESSIONS_READ, current
from chat_gateway.http_edge.dependencies import Dependencies
from contract.reasons import Reason
from parley.session.v1 import session_service_pb2 as pb
from servicekit.errors import ServiceError

_GONE = (Reason.SESSION_NOT_FOUND, Reason.INVALID_FIELD)


async def reading_user(deps: Dependencies, project: str, session_id: str, user_id: str) -> str:
    """Returns the user that a request is about; the session's where it names none ("") and may read sessions."""
    if user_id or not current().may(SESSIONS_READ):
        return user_id
    try:
        session = await deps.session_svc.call(
            deps.stubs.sessions.GetSession, pb.GetSessionRequest(project=project, id=session_id)
        )
    except ServiceError as error:
        if error.reason in _GONE:
            return user_id  # the next check reports it
        raise
    return session.session.user_id
