"""What BeginTurn answers: the lease, the window of the session, limits."""

from collections.abc import Sequence

from chat_gateway.convert.messages import awaiting_of, messages_from_turns, turn_from_proto
from chat_gateway.convert.times import from_timestamp, to_timestamp
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.pairing import task_of, whole_turns
from chat_gateway.model.stored_turn import Begun, Lease
from chat_gateway.model.turn import LimitState, Message, TurnLimit
from parley.session.v1 import message_pb2
from parley.session.v1 import turn_service_pb2 as pb

MAX_COMPARED_MESSAGES = 1000
"""Longer histories are not read to compare a transcript with them: their digest alone decides."""
_READ_FOR_TOOLS = 4
"""Messages that are read of the history of an agent with tools, for each one of its window."""


def messages_to_read(config: AgentConfig) -> int:
    """Returns how many messages of a session's history to ask for, for the window of an agent with tools."""
    # The steps of a turn with tools are no messages to their caller: they take no place of the window from others.
    if not config.window_messages:
        return 0
    steps = 2 * config.tool_policy.max_steps
    return min(_READ_FOR_TOOLS * config.window_messages + steps, MAX_COMPARED_MESSAGES)


def window_of(turns: Sequence[message_pb2.Turn], config: AgentConfig, *, goes_on: bool) -> tuple[Message, ...]:
    """Returns the window of an agent with tools, where a turn counts as what its caller sees of it."""
    newest_first = turns[::-1]
    counts = [turn.answer_start + 1 if turn.HasField("answer_start") else len(turn.messages) for turn in newest_first]
    messages = [messages_from_turns((turn,)) for turn in newest_first]
    if _begins_apart(turns):
        messages[-1], counts[-1] = task_of(messages[-1]), 0
    return whole_turns(messages, config.window_messages, goes_on, counts)


def messages_of(turns: Sequence[message_pb2.Turn]) -> tuple[Message, ...]:
    """Returns the window of an agent without tools."""
    if _begins_apart(turns):
        return task_of(messages_from_turns(turns[:1])) + messages_from_turns(turns[1:])
    return messages_from_turns(turns)


def _begins_apart(turns: Sequence[message_pb2.Turn]) -> bool:
    """Whether turns are left out behind the first: it is there for the task of a chain of tool calls."""
    return len(turns) > 1 and turns[1].number > turns[0].number + 1


def begun_from_proto(response: pb.BeginTurnResponse, config: AgentConfig, sent: float, *, goes_on: bool) -> Begun:
    """Returns what BeginTurn answered to what was `sent` then. `goes_on`: the turn brings results of calls that the
    window's last turn made.
    """
    session = response.session
    newest = response.window[-1] if response.window else None
    awaiting = awaiting_of(newest, session.cancelled_turn_id) if newest is not None else ()
    replayed = turn_from_proto(response.replayed_turn) if response.HasField("replayed_turn") else None
    return Begun(
        session_id=session.id,
        created=response.created,
        message_count=session.message_count,
        pinned_revision=session.pinned_revision,
        metadata=dict(session.metadata),
        expire_time=from_timestamp(session.expire_time),
        lease=lease_from_proto(response.lease, sent) if response.HasField("lease") else None,
        joined_turn_id=response.joined_turn_id,
        window=window_of(response.window, config, goes_on=goes_on) if config.tools else messages_of(response.window),
        replayed=replayed,
        limits=limit_states(response),
        history_digest=response.history_digest,
        full_turns=session.turn_count if response.full else 0,
        part_bytes=session.part_bytes,
        awaiting=awaiting,
        handed_to=tuple(newest.handed_to) if newest is not None else (),
        awaiting_servers={run.tool_call_id: run.server for run in newest.tool_runs} if newest and awaiting else {},
        begun_calls=tuple(response.begun_call_ids),
    )


def limit_to_proto(limit: TurnLimit) -> pb.TurnLimit:
    """Returns a limit that a turn counts in."""
    return pb.TurnLimit(
        subject=limit.subject,
        requests_per_minute=limit.requests_per_minute,
        concurrent_turns=limit.concurrent_turns,
        wait=limit.wait,
    )


def limit_states(response: pb.BeginTurnResponse) -> tuple[LimitState, ...]:
    """Returns how full the limits are that the turn counts in."""
    return tuple(
        LimitState(state.subject, state.requests_per_minute, state.remaining, state.reset.ToMilliseconds() / 1000)
        for state in response.limits
    )


def lease_from_proto(lease: pb.TurnLease, sent: float) -> Lease:
    """Returns the lease that answers a request which was `sent` then, by `time.monotonic()`."""
    return Lease(
        lease.project,
        lease.session_id,
        lease.turn_id,
        lease.token,
        from_timestamp(lease.expire_time),
        tuple(lease.limits),
        ends=end_of(lease.lasts_ms, sent),
    )


def end_of(lasts_ms: int, sent: float) -> float | None:
    """Returns when a lease ends at the earliest: it was received after it was `sent`. None where it is not said."""
    return sent + lasts_ms / 1000 if lasts_ms else None


def lease_to_proto(lease: Lease) -> pb.TurnLease:
    """Returns the lease as session_svc gave it."""
    return pb.TurnLease(
        project=lease.project,
        session_id=lease.session_id,
        turn_id=lease.turn_id,
        token=lease.token,
        expire_time=to_timestamp(lease.expire_time),
        limits=lease.limits,
    )
