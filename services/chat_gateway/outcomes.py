"""What becomes of an answer: the turn that is stored, and its outcome for the first caller and for repeats."""

from datetime import UTC, datetime

from chat_gateway.model.answers import agents_part, pending_approvals, visible, whole_delta
from chat_gateway.model.history import EMPTY, grown
from chat_gateway.model.stored_turn import Begun, Turn
from chat_gateway.model.tools import ToolOutcome, ToolRun
from chat_gateway.model.turn import Answer, LimitState, OnDelta, OnStarted, TurnOutcome, TurnStarted
from chat_gateway.started_turn import StartedTurn


def turn_to_store(turn: StartedTurn, revision: int, begun: Begun, answer: Answer, cut_after: int | None) -> Turn:
    """Returns the turn as its session is to have it."""
    request = turn.request
    plain = len(answer.messages) == 1 and not answer.awaiting
    seen = answer.messages[0] if plain else visible(answer.messages, answer.awaiting)
    digest = begun.history_digest or (b"" if begun.message_count else EMPTY)
    return Turn(
        id=turn.turn_id,
        messages=request.messages + answer.messages,
        agent_revision=revision,
        usage=answer.usage,
        finish_reason=answer.finish_reason,
        begin_time=turn.time,
        model=answer.model,
        details=answer.details,
        # Only what the caller has seen of the answer is in the digest: that is what comes back.
        history_digest=grown(digest, (*request.messages, seen)) if digest else b"",
        cut_after=cut_after,
        answer_start=None if plain else len(request.messages),
        awaiting=answer.awaiting,
        runs=_with_begun_calls(answer.runs, begun) if begun.begun_calls else answer.runs,
        notes=request.notes,
        end_time=datetime.now(UTC) if request.notes else None,
        listed=answer.listed,
        unavailable=answer.unavailable,
        handed_to=answer.handed_to,
    )


def _with_begun_calls(runs: tuple[ToolRun, ...], begun: Begun) -> tuple[ToolRun, ...]:
    """Returns the runs with the calls of the turn before that failed turns may have made: if this turn is removed, they
    wait again, and must not be made once more. Templates without the tool loop do not report them.
    """
    known = {run.call_id for run in runs}
    calls = {call.id: call for message in begun.window for call in message.tool_calls}
    return runs + tuple(
        ToolRun(
            call_id,
            begun.awaiting_servers.get(call_id, ""),
            ToolOutcome.UNKNOWN,
            calls[call_id].name,
            calls[call_id].arguments,
        )
        for call_id in dict.fromkeys(begun.begun_calls)
        if call_id in calls and call_id not in known
    )


def stateless_outcome(turn: StartedTurn, revision: int, begun: Begun, answer: Answer) -> TurnOutcome:
    """Returns how a turn ended that no session has."""
    return TurnOutcome(
        turn_id=turn.turn_id,
        session_id="",
        session_created=False,
        turn_number=0,
        session_expire_time=None,
        agent_revision=revision,
        message=visible(answer.messages, answer.awaiting),
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        model=answer.model,
        begin_time=turn.time,
        limits=begun.limits,
        details=answer.details,
        unavailable=answer.unavailable,
        pending=pending_approvals(answer.messages, answer.awaiting),
        others=answer.others,
        said=answer.messages,
        runs=answer.runs,
        notes=turn.request.notes,
        listed=answer.listed,
    )


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
        unavailable=stored.unavailable,
    )
