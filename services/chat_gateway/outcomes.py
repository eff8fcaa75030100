"""The outcome of a stored turn, for the first caller and for repeats."""

from datetime import datetime

from chat_gateway.model.answers import agents_part, pending_approvals, visible, whole_delta
from chat_gateway.model.stored_turn import Begun, Turn
from chat_gateway.model.turn import LimitState, OnDelta, OnStarted, TurnOutcome, TurnStarted


async def replay(begun: Begun, on_started: OnStarted | None, on_delta: OnDelta | None) -> TurnOutcome:
    """Replays to a caller the turn that is stored for its request."""
    stored = begun.replayed
    assert stored is not None, "BeginTurn answers a lease or a stored turn"
    outcome = outcome_of(
        stored, begun, stored.agent_revision, number=stored.number, expire_time=begun.expire_time, replayed=True
    )
    if on_started is not None:
        await on_started(
            TurnStarted(
                turn_id=stored.id,
                session_id=begun.session_id,
                session_created=False,
                session_expire_time=begun.expire_time,
                agent_revision=stored.agent_revision,
                begin_time=stored.begin_time,
                replayed=True,
                provider=stored.details.provider,
            )
        )
    if on_delta is not None:
        await on_delta(whole_delta(outcome.message))
    return outcome


def outcome_of(
    stored: Turn, begun: Begun, revision: int, *, number: int, expire_time: datetime | None, replayed: bool = False
) -> TurnOutcome:
    """Returns how a stored turn ended, with the time at which its session ends."""
    return _outcome(
        stored,
        begun.session_id,
        revision,
        number,
        created=begun.created,
        expire_time=expire_time,
        replayed=replayed,
        limits=begun.limits,
    )


def stored_outcome(stored: Turn, session_id: str) -> TurnOutcome:
    """Returns how a turn that is read from its session ended."""
    return _outcome(stored, session_id, stored.agent_revision, stored.number)


def _outcome(
    stored: Turn,
    session_id: str,
    revision: int,
    number: int,
    *,
    created: bool = False,
    expire_time: datetime | None = None,
    replayed: bool = False,
    limits: tuple[LimitState, ...] = (),
) -> TurnOutcome:
    said = agents_part(stored)
    return TurnOutcome(
        turn_id=stored.id,
        session_id=session_id,
        session_created=created,
        turn_number=number,
        session_expire_time=expire_time,
        agent_revision=revision,
        message=visible(said, stored.awaiting),
        finish_reason=stored.finish_reason,
        usage=stored.usage,
        model=stored.model,
        begin_time=stored.begin_time,
        replayed=replayed,
        limits=limits,
        details=stored.details,
        pending=pending_approvals(stored.messages, stored.awaiting) if stored.awaiting else (),
        said=said,
        runs=stored.runs,
        notes=stored.notes,
        end_time=stored.end_time,
        listed=stored.listed,
    )
