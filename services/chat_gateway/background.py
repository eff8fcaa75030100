"""Background turns, and the state and cancellation of any turn. A turn is identified by its session and id, and visible
to the session's own user.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from access.caller import current
from chat_gateway.aborts import Aborts
from chat_gateway.admission import new_turn_id
from chat_gateway.digest import request_digest
from chat_gateway.limits import turn_limits
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.background import TurnState, TurnStatus
from chat_gateway.model.errors import SessionFull
from chat_gateway.model.history import is_transcript
from chat_gateway.model.journal import TurnBegun
from chat_gateway.model.rules import DEFAULT_BOUNDS, RequestBounds, check_tool_choice, check_turn_request
from chat_gateway.model.stored_turn import Begun, Lease
from chat_gateway.model.turn import FinishReason, OnDisconnect, TurnOutcome, TurnRequest
from chat_gateway.outcomes import replay
from chat_gateway.pickup import Pickups
from chat_gateway.ports import Claims, Configs, Sessions, StoredTurns
from chat_gateway.request_policy import resolved_request
from chat_gateway.resumption import needs_user_token, resumption_of
from chat_gateway.scheduler import Scheduler
from contract.reasons import Reason
from servicekit.errors import Cancelled, Draining, InvalidArgument, ServiceError, Unavailable, Violation

_JOIN_SECONDS = 20.0
"""How long a turn of an earlier request with the same id may take to be queued. One whose begin was never answered has
no journal, and ends with its lease: it is not waited for."""
_FIRST_PAUSE, _MAX_PAUSE = 0.05, 0.5


class BackgroundTurns:
    """Submits, reads and cancels turns."""

    def __init__(
        self,
        *,
        configs: Configs,
        sessions: Sessions,
        claims: Claims,
        stored: StoredTurns,
        aborts: Aborts,
        scheduler: Scheduler,
        pickups: Pickups,
        bounds: RequestBounds = DEFAULT_BOUNDS,
    ) -> None:
        self._configs = configs
        self._sessions = sessions
        self._claims = claims
        self._stored = stored
        self._aborts = aborts
        self._scheduler = scheduler
        self._pickups = pickups
        self._bounds = bounds

    async def submit(self, request: TurnRequest) -> TurnState:
        """Queues a turn, which holds its session until it has ended, and returns its state with its ids. If the session
        is busy, `request.busy` applies, as for any turn. A repeat with the same request id returns the existing turn.
        Raises what `TurnRunner.run` raises before the model call, and `RemoteError` (TURN_QUEUE_FULL) if too many turns
        of the project are queued.
        """
        request = replace(request, background=True, resumable=True, on_disconnect=OnDisconnect.FINISH)
        check_turn_request(request, self._bounds, resolved=False)
        if self._scheduler.draining:
            raise Draining
        config = await self._configs.current(request.project, request.agent_id)
        if request.agent_revision:
            config = await self._configs.at_revision(config, request.agent_revision)
        check_tool_choice(request, config)
        digest = request_digest(request) if request.request_id else b""
        request = resolved_request(request, current(), config, self._bounds)
        _check(request, config)
        loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE
        give_up = loop.time() + _JOIN_SECONDS
        while True:
            turn_id, limits = new_turn_id(), turn_limits(current(), config)
            with self._aborts.unless_answered(request, turn_id, limits):
                begun = await self._sessions.begin(request, config, turn_id, digest, limits)
            if begun.joined_turn_id:
                joined = await self._joined(request, begun)
                if joined is not None and (joined.begin_time is not None or loop.time() >= give_up):
                    return joined
                if loop.time() >= give_up:
                    raise Unavailable("the turn of an earlier request, whose caller left,")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE)
                continue
            if begun.lease is None:
                return _ended(await replay(begun, None, None), config.id)
            return await self._queue(request, config, begun, begun.lease, digest)

    async def _joined(self, request: TurnRequest, begun: Begun) -> TurnState | None:
        """Returns the turn of an earlier request with the same id; None if it ended before it was queued."""
        try:
            found = await self.state(request.project, begun.session_id, request.user_id, begun.joined_turn_id)
        except ServiceError as error:
            if error.reason != Reason.TURN_NOT_FOUND:
                raise
            return None
        return None if found.error is not None and found.error.reason == Cancelled.reason else found

    async def state(self, project: str, session_id: str, user_id: str, turn_id: str) -> TurnState:
        """Returns the state of any turn of the user's session that runs, is stored, or failed recently.

        Raises `RemoteError` (TURN_NOT_FOUND), `Unavailable`.
        """
        try:
            found = await self._claims.progress(project, session_id, user_id, turn_id)
        except ServiceError as error:
            if error.reason not in (Reason.TURN_NOT_FOUND, Reason.NOT_IMPLEMENTED):
                raise
            stored = await self._stored.outcome(project, session_id, user_id, turn_id)
            if stored is None:
                raise
            return _ended(*stored)
        ended = found.ended
        return TurnState(
            turn_id,
            session_id,
            found.status,
            found.agent_id,
            found.agent_revision,
            found.begin_time,
            found.attempt,
            ended if isinstance(ended, TurnOutcome) else None,
            ended if isinstance(ended, ServiceError) else None,
        )

    async def cancel(
        self, project: str, session_id: str, user_id: str, turn_id: str, timeout: float | None = None
    ) -> TurnState:
        """Cancels a queued or running turn; returns its state once it has ended for any reason. A stored turn stays.
        Idempotent. Raises `RemoteError` (TURN_NOT_FOUND), `DeadlineExceeded`.
        """
        try:
            await self._claims.cancel(project, session_id, user_id, turn_id, timeout)
        except ServiceError as error:
            if error.reason != Reason.TURN_NOT_FOUND:
                raise
        return await self.state(project, session_id, user_id, turn_id)

    async def cancel_waiting(self, project: str, session_id: str, user_id: str, turn_id: str) -> None:
        """Cancels what the newest turn of a session waits for: its calls count as rejected. Idempotent.

        Raises `RemoteError` (TURN_NOT_FOUND for any other turn, SESSION_BUSY while one is under way).
        """
        await self._claims.cancel_waiting(project, session_id, user_id, turn_id)

    async def _queue(
        self, request: TurnRequest, config: AgentConfig, begun: Begun, lease: Lease, digest: bytes
    ) -> TurnState:
        try:
            if begun.full_turns and not is_transcript(request):
                raise SessionFull(begun.session_id, begun.full_turns)
            if begun.pinned_revision and not request.agent_revision:
                config = await self._configs.at_revision(config, begun.pinned_revision)
                _check(request, config)
            begin_time = datetime.now(UTC)
            written = resumption_of(request, config, digest, begin_time)
            first = TurnBegun(config.id, config.revision, begun.created, begin_time, written, request.notes)
            lease = replace(lease, journaled=True)
            await self._sessions.append(lease, 1, [first])
            await self._claims.hand_over(lease, queued=True)
        except BaseException as error:
            self._aborts.start(lease, error if isinstance(error, ServiceError) else Cancelled("it was not queued"))
            raise
        self._pickups.wake()
        return TurnState(lease.turn_id, begun.session_id, TurnStatus.QUEUED, config.id, config.revision, begin_time, 0)


def _check(request: TurnRequest, config: AgentConfig) -> None:
    if request.stateless:
        raise InvalidArgument([Violation("background", "needs a session: store must not be false")])
    if needs_user_token(config):
        raise InvalidArgument(
            [Violation("background", "must be false for an agent that passes its user's token on to tools")]
        )


def _ended(outcome: TurnOutcome, agent_id: str) -> TurnState:
    approval = outcome.finish_reason is FinishReason.REQUIRES_APPROVAL
    return TurnState(
        outcome.turn_id,
        outcome.session_id,
        TurnStatus.REQUIRES_APPROVAL if approval else TurnStatus.FINISHED,
        agent_id,
        outcome.agent_revision,
        outcome.begin_time,
        outcome=outcome,
    )
