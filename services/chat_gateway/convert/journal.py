"""The journal of a turn between the domain and `parley.session.v1`."""

from datetime import UTC, datetime, timedelta

from chat_gateway.convert.messages import (
    FINISH_REASONS,
    TOOL_OUTCOMES,
    details_from_proto,
    details_to_proto,
    finish_reason_from_proto,
    message_from_proto,
    message_to_proto,
    provider_data_from_proto,
    provider_data_to_proto,
    unavailable_from_proto,
    unavailable_to_proto,
    usage_from_proto,
    usage_to_proto,
)
from chat_gateway.convert.times import from_duration, from_timestamp, to_duration, to_timestamp
from chat_gateway.convert.tools_listed import tools_listed_from_bytes, tools_listed_to_bytes
from chat_gateway.model.answers import agents_part, pending_approvals, visible
from chat_gateway.model.journal import CallRecorded, JournalEntry, JournalEvent, StepCalled, TurnBegun
from chat_gateway.model.stored_turn import Turn
from chat_gateway.model.tools import (
    CalledTool,
    CallFinished,
    CallStarted,
    PendingApproval,
    StepFinished,
    ToolOutcome,
    TurnResumed,
)
from chat_gateway.model.tools_listed import ToolsListed
from chat_gateway.model.turn import Delta, ToolCallDelta, TurnOutcome
from chat_gateway.model.usage import NO_USAGE
from parley.session.v1 import message_pb2, turn_event_pb2
from servicekit.errors import ServiceError
from servicekit.rpc_status import from_status, to_status


def entry_to_proto(entry: JournalEntry) -> turn_event_pb2.TurnEvent:
    """Returns the entry as it is written."""
    out = turn_event_pb2.TurnEvent()
    match entry:
        case TurnBegun():
            out.time.CopyFrom(to_timestamp(entry.begin_time))
            begun = out.begun
            begun.agent_id, begun.agent_revision = entry.agent_id, entry.agent_revision
            begun.session_created, begun.request = entry.session_created, entry.request
            begun.request_notes = entry.notes
        case TurnResumed():
            out.step, out.attempt = entry.step, entry.attempt
            out.resumed.SetInParent()
        case ToolsListed():
            out.tools_listed.tools = tools_listed_to_bytes(entry)
        case Delta():
            _fill_delta(out.delta, entry)
        case CallStarted():
            out.step = entry.step
            out.unavailable_tools.extend(unavailable_to_proto(entry.unavailable))
            call = message_pb2.ToolCall(id=entry.call_id, name=entry.name, arguments=entry.arguments)
            out.tool_call_started.CopyFrom(turn_event_pb2.ToolCallStarted(call=call, server=entry.server))
        case CallRecorded(event, content):
            out.step = event.step
            finished = out.tool_call_finished
            finished.tool_call_id, finished.name, finished.server = event.call_id, event.name, event.server
            finished.outcome, finished.content = event.outcome.value, content
            finished.duration.CopyFrom(to_duration(timedelta(seconds=event.seconds)))
            if event.usage is not NO_USAGE:
                finished.usage.CopyFrom(usage_to_proto(event.usage))
        case StepCalled():
            out.step = entry.step
            out.unavailable_tools.extend(unavailable_to_proto(entry.unavailable))
            out.step_called.handed_to.extend(entry.handed_to)
            for tool in entry.tools:
                out.step_called.tools.add(
                    tool_call_id=tool.call_id, server=tool.server, needs_approval=tool.needs_approval
                )
            out.step_called.message.CopyFrom(message_to_proto(entry.message))
            out.step_called.usage.CopyFrom(usage_to_proto(entry.usage))
        case StepFinished():
            out.step = entry.step
            out.step_finished.usage.CopyFrom(usage_to_proto(entry.usage))
    return out


def committed_to_proto(turn: Turn) -> turn_event_pb2.TurnEvent:
    """Returns the end of a turn that is stored with it."""
    out = turn_event_pb2.TurnEvent()
    committed = out.ended.committed
    committed.message.CopyFrom(message_to_proto(visible(agents_part(turn), turn.awaiting)))
    committed.finish_reason = FINISH_REASONS[turn.finish_reason]
    committed.usage.CopyFrom(usage_to_proto(turn.usage))
    committed.model = turn.model
    if details := details_to_proto(turn.details):
        committed.details.CopyFrom(details)
    for one in pending_approvals(turn.messages, turn.awaiting):
        committed.pending.add(id=one.call_id, name=one.name, arguments=one.arguments)
    committed.unavailable_tools.extend(unavailable_to_proto(turn.unavailable))
    return out


def failed_to_proto(error: ServiceError) -> turn_event_pb2.TurnEvent:
    """Returns the end of a turn that failed."""
    return turn_event_pb2.TurnEvent(ended=turn_event_pb2.TurnEnded(failure=to_status(error).SerializeToString()))


def event_from_proto(
    event: turn_event_pb2.TurnEvent, begun: TurnBegun | None, turn_id: str, session_id: str
) -> JournalEvent | None:
    """Returns the event; None for one of a kind that this release does not know.

    `begun` is the turn's first entry, where it was read: an outcome says what it says.
    """
    match event.WhichOneof("event"):
        case "begun":
            one = event.begun
            return JournalEvent(
                event.id,
                TurnBegun(
                    one.agent_id,
                    one.agent_revision,
                    one.session_created,
                    from_timestamp(event.time),
                    one.request,
                    one.request_notes,
                ),
            )
        case "tools_listed":
            listed = tools_listed_from_bytes(event.tools_listed.tools)
            return None if listed is None else JournalEvent(event.id, listed)
        case "delta":
            return JournalEvent(event.id, _delta(event.delta))
        case "tool_call_started":
            call = event.tool_call_started.call
            server = event.tool_call_started.server
            without = unavailable_from_proto(event.unavailable_tools)
            return JournalEvent(event.id, CallStarted(event.step, call.id, call.name, call.arguments, server, without))
        case "tool_call_finished":
            return JournalEvent(event.id, _recorded(event))
        case "step_called":
            called = event.step_called
            message, usage = message_from_proto(called.message), usage_from_proto(called.usage)
            tools = tuple([CalledTool(one.tool_call_id, one.server, one.needs_approval) for one in called.tools])
            without = unavailable_from_proto(event.unavailable_tools)
            entry = StepCalled(event.step, message, usage, tools, without, tuple(called.handed_to))
            return JournalEvent(event.id, entry)
        case "step_finished":
            return JournalEvent(event.id, StepFinished(event.step, usage_from_proto(event.step_finished.usage)))
        case "resumed":
            return JournalEvent(event.id, TurnResumed(event.step, event.attempt))
        case "ended":
            return JournalEvent(event.id, _ended(event.ended, begun, turn_id, session_id))
    return None


def _fill_delta(out: turn_event_pb2.AnswerDelta, delta: Delta) -> None:
    out.content, out.refusal, out.reasoning = delta.content, delta.refusal, delta.reasoning
    for call in delta.tool_calls:
        out.tool_calls.add(
            index=call.index,
            id=call.id,
            name=call.name,
            arguments=call.arguments,
            provider_data=provider_data_to_proto(call.provider_data),
        )
    if (data := provider_data_to_proto(delta.provider_data)) is not None:
        out.provider_data.CopyFrom(data)


def _delta(delta: turn_event_pb2.AnswerDelta) -> Delta:
    calls = tuple(
        ToolCallDelta(
            call.index,
            call.id,
            call.name,
            call.arguments,
            provider_data_from_proto(call.provider_data) if call.HasField("provider_data") else None,
        )
        for call in delta.tool_calls
    )
    data = provider_data_from_proto(delta.provider_data) if delta.HasField("provider_data") else None
    return Delta(delta.content, calls, delta.refusal, delta.reasoning, data)


def _recorded(event: turn_event_pb2.TurnEvent) -> CallRecorded:
    one = event.tool_call_finished
    outcome = TOOL_OUTCOMES.get(one.outcome, ToolOutcome.UNKNOWN)
    seconds = from_duration(one.duration).total_seconds()
    usage = usage_from_proto(one.usage) if one.HasField("usage") else NO_USAGE
    finished = CallFinished(event.step, one.tool_call_id, one.name, one.server, outcome, seconds, usage=usage)
    return CallRecorded(finished, one.content)


def _ended(
    ended: turn_event_pb2.TurnEnded, begun: TurnBegun | None, turn_id: str, session_id: str
) -> TurnOutcome | ServiceError:
    if ended.WhichOneof("outcome") == "failure":
        return from_status(ended.failure)
    committed = ended.committed
    expires = committed.HasField("session_expire_time")
    return TurnOutcome(
        turn_id=turn_id,
        session_id=session_id,
        session_created=begun.session_created if begun is not None else False,
        turn_number=committed.turn_number,
        session_expire_time=from_timestamp(committed.session_expire_time) if expires else None,
        agent_revision=begun.agent_revision if begun is not None else 0,
        message=message_from_proto(committed.message),
        finish_reason=finish_reason_from_proto(committed.finish_reason),
        usage=usage_from_proto(committed.usage),
        model=committed.model,
        begin_time=begun.begin_time if begun is not None else datetime.fromtimestamp(0, UTC),
        details=details_from_proto(committed.details),
        unavailable=unavailable_from_proto(committed.unavailable_tools),
        pending=tuple([PendingApproval(call.id, call.name, call.arguments) for call in committed.pending]),
    )
