"""session_svc's TurnService and SessionService as the ports `Claims` and `StoredTurns`."""

import time
from dataclasses import replace
from datetime import timedelta

import structlog

from chat_gateway.clients.stubs import SESSION_SVC, Stubs
from chat_gateway.convert.begun_turns import lease_from_proto, lease_to_proto
from chat_gateway.convert.journal import event_from_proto
from chat_gateway.convert.messages import turn_from_proto
from chat_gateway.convert.resumption import resumable_from_bytes
from chat_gateway.convert.times import to_duration
from chat_gateway.model.answers import agents_part, pending_approvals, visible
from chat_gateway.model.background import ClaimedTurn, NothingClaimed, TurnProgress, TurnStatus
from chat_gateway.model.journal import TurnBegun
from chat_gateway.model.stored_turn import Lease
from chat_gateway.model.turn import FinishReason, TurnOutcome
from contract.reasons import Reason
from parley.session.v1 import session_service_pb2
from parley.session.v1 import turn_service_pb2 as pb
from servicekit.channels import call
from servicekit.errors import ServiceError

log = structlog.get_logger(__name__)

_GONE = (Reason.SESSION_NOT_FOUND, Reason.TURN_NOT_FOUND, Reason.INVALID_FIELD)
_STATUSES = {
    pb.TURN_STATE_QUEUED: TurnStatus.QUEUED,
    pb.TURN_STATE_RUNNING: TurnStatus.RUNNING,
    pb.TURN_STATE_ENDED: TurnStatus.FAILED,
}


class ClaimClient:
    """`timeout` bounds each call, in seconds, except for the waits for a turn, and for the end of one."""

    def __init__(self, stubs: Stubs, *, timeout: float) -> None:
        self._turns = stubs.turns
        self._timeout = timeout

    async def claim(self, hold: float) -> ClaimedTurn | NothingClaimed:
        request = pb.ClaimTurnRequest(hold=to_duration(timedelta(seconds=hold)) if hold else None)
        sent = time.monotonic()
        response = await call(self._turns.ClaimTurn, request, timeout=self._timeout + hold, peer=SESSION_SVC)
        if not response.HasField("lease"):
            return NothingClaimed(held=response.held)
        lease = replace(
            lease_from_proto(response.lease, sent), journaled=True, goes_on=True, attempt=max(response.attempt, 1)
        )
        try:
            return ClaimedTurn(lease, resumable_from_bytes(response.request))
        except Exception as error:  # a fault of one must not prevent the takeover of others
            log.error("turn_not_understood", turn_id=lease.turn_id, exc_info=error)
            return NothingClaimed()

    async def hand_over(self, lease: Lease, *, queued: bool) -> None:
        request = pb.HandOverTurnRequest(lease=lease_to_proto(lease), queued=queued)
        await call(self._turns.HandOverTurn, request, timeout=self._timeout, peer=SESSION_SVC)

    async def cancel(self, project: str, session_id: str, user_id: str, turn_id: str, timeout: float | None) -> None:
        request = pb.CancelTurnRequest(project=project, session_id=session_id, user_id=user_id, turn_id=turn_id)
        await call(self._turns.CancelTurn, request, timeout=timeout, peer=SESSION_SVC)

    async def cancel_waiting(self, project: str, session_id: str, user_id: str, turn_id: str) -> None:
        request = pb.CancelTurnRequest(
            project=project, session_id=session_id, user_id=user_id, turn_id=turn_id, waiting=True
        )
        await call(self._turns.CancelTurn, request, timeout=self._timeout, peer=SESSION_SVC)

    async def progress(self, project: str, session_id: str, user_id: str, turn_id: str) -> TurnProgress:
        request = pb.GetTurnStateRequest(project=project, session_id=session_id, user_id=user_id, turn_id=turn_id)
        found = await call(self._turns.GetTurnState, request, timeout=self._timeout, peer=SESSION_SVC)
        first = event_from_proto(found.begun, None, turn_id, session_id) if found.HasField("begun") else None
        begun = first.entry if first is not None and isinstance(first.entry, TurnBegun) else None
        last = event_from_proto(found.ended, begun, turn_id, session_id) if found.HasField("ended") else None
        ended = last.entry if last is not None and isinstance(last.entry, TurnOutcome | ServiceError) else None
        return TurnProgress(
            _status_of(ended) if ended is not None else _STATUSES.get(found.state, TurnStatus.RUNNING),
            found.attempt,
            begun.agent_id if begun is not None else "",
            begun.agent_revision if begun is not None else 0,
            begun.begin_time if begun is not None else None,
            ended,
        )


class StoredTurnClient:
    """`timeout` bounds each call, in seconds."""

    def __init__(self, stubs: Stubs, *, timeout: float) -> None:
        self._sessions = stubs.sessions
        self._timeout = timeout

    async def outcome(
        self, project: str, session_id: str, user_id: str, turn_id: str
    ) -> tuple[TurnOutcome, str] | None:
        request = session_service_pb2.GetTurnRequest(
            project=project, session_id=session_id, user_id=user_id, turn_id=turn_id
        )
        try:
            found = await call(self._sessions.GetTurn, request, timeout=self._timeout, peer=SESSION_SVC)
        except ServiceError as error:
            if error.reason in _GONE:
                return None
            raise
        if found.session.user_id != user_id:
            return None
        stored = turn_from_proto(found.turn)
        outcome = TurnOutcome(
            turn_id=stored.id,
            session_id=session_id,
            session_created=False,
            turn_number=stored.number,
            session_expire_time=None,
            agent_revision=stored.agent_revision,
            message=visible(agents_part(stored), stored.awaiting),
            finish_reason=stored.finish_reason,
            usage=stored.usage,
            model=stored.model,
            begin_time=stored.begin_time,
            details=stored.details,
            pending=pending_approvals(stored.messages, stored.awaiting),
            unavailable=stored.unavailable,
        )
        return outcome, found.session.agent_id


def _status_of(ended: TurnOutcome | ServiceError) -> TurnStatus:
    if isinstance(ended, ServiceError):
        return TurnStatus.CANCELLED if ended.reason == Reason.TURN_CANCELLED else TurnStatus.FAILED
    approval = ended.finish_reason is FinishReason.REQUIRES_APPROVAL
    return TurnStatus.REQUIRES_APPROVAL if approval else TurnStatus.FINISHED
