"""What a response was asked that is not stored: one that is queued, runs, or failed minutes ago."""

from chat_gateway.convert.resumption import resumable_from_bytes
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.http_edge.openai.responses.answer_schema import Item
from chat_gateway.http_edge.openai.responses.ids import TurnRef
from chat_gateway.http_edge.openai.responses.stored_items import items_brought
from contract.reasons import Reason
from parley.session.v1 import turn_service_pb2 as pb
from servicekit.errors import ServiceError

_UNKNOWN = (Reason.SESSION_NOT_FOUND, Reason.TURN_NOT_FOUND, Reason.INVALID_FIELD)


async def items_of_running(deps: Dependencies, project: str, turn: TurnRef, user_id: str) -> list[Item] | None:
    """Returns the items of its request; None for one that is not there, or that no other gateway could go on with."""
    request = pb.GetTurnStateRequest(
        project=project, session_id=turn.session_id, user_id=user_id, turn_id=turn.turn_id, with_request=True
    )
    try:
        found = await deps.session_svc.call(deps.stubs.turns.GetTurnState, request)
    except ServiceError as error:
        if error.reason in _UNKNOWN:
            return None
        raise
    asked = resumable_from_bytes(found.request) if found.request else None
    return None if asked is None else items_brought(turn, asked.request.messages, asked.request.notes)
