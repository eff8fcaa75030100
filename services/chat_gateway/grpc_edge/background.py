"""Conversions between background turns and `parley.chat.v1`."""

from chat_gateway.convert.messages import message_to_proto
from chat_gateway.convert.times import to_timestamp
from chat_gateway.grpc_edge.convert import outcome_to_proto
from chat_gateway.model.background import TurnState, TurnStatus
from contract.fields import DEFAULT_PROJECT, check_resource_id, check_session_id, check_turn_id, check_user_id
from parley.chat.v1 import chat_service_pb2 as pb
from servicekit.errors import Violations
from servicekit.rpc_status import to_status

_STATUSES = {
    TurnStatus.QUEUED: pb.TURN_STATUS_QUEUED,
    TurnStatus.RUNNING: pb.TURN_STATUS_RUNNING,
    TurnStatus.FINISHED: pb.TURN_STATUS_FINISHED,
    TurnStatus.REQUIRES_APPROVAL: pb.TURN_STATUS_REQUIRES_APPROVAL,
    TurnStatus.FAILED: pb.TURN_STATUS_FAILED,
    TurnStatus.CANCELLED: pb.TURN_STATUS_CANCELLED,
}


def turn_named(request: pb.GetTurnRequest | pb.CancelTurnRequest) -> tuple[str, str, str, str]:
    """Returns project, session, user and turn. Raises `InvalidArgument` with every violation."""
    found = Violations()
    if request.project:
        check_resource_id(found, "project", request.project)
    check_session_id(found, "session_id", request.session_id)
    check_user_id(found, "user_id", request.user_id)
    check_turn_id(found, "turn_id", request.turn_id)
    found.check()
    return request.project or DEFAULT_PROJECT, request.session_id, request.user_id, request.turn_id


def state_to_proto(state: TurnState) -> pb.TurnState:
    """Returns how far a turn is."""
    out = pb.TurnState(
        turn_id=state.turn_id,
        session_id=state.session_id,
        status=_STATUSES[state.status],
        agent_id=state.agent_id,
        agent_revision=state.agent_revision,
        attempt=state.attempt,
    )
    if state.begin_time is not None:
        out.begin_time.CopyFrom(to_timestamp(state.begin_time))
    if state.outcome is not None:
        out.message.CopyFrom(message_to_proto(state.outcome.message))
        out.outcome.CopyFrom(outcome_to_proto(state.outcome))
    if state.error is not None:
        out.failure = to_status(state.error).SerializeToString()
    return out
