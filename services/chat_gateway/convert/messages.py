"""Messages and turns between the domain and `parley.session.v1`."""

from collections.abc import Iterable

from chat_gateway.convert.times import from_timestamp, to_timestamp
from chat_gateway.convert.tools_listed import tools_listed_from_bytes, tools_listed_to_bytes
from chat_gateway.model.parts import content_of
from chat_gateway.model.stored_turn import Turn
from chat_gateway.model.tools import ToolOutcome, ToolRun, ToolsUnavailable
from chat_gateway.model.turn import (
    NO_DETAILS,
    AnswerDetails,
    AudioPart,
    FilePart,
    FinishReason,
    ImagePart,
    Kept,
    MediaPart,
    Message,
    Part,
    ProviderData,
    TextPart,
    ToolCall,
    Usage,
)
from contract.enums import Role
from contract.wire import ROLE_NUMBERS, ROLES
from parley.session.v1 import message_pb2 as pb

FINISH_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: pb.FINISH_REASON_TOOL_CALLS,
    FinishReason.CONTENT_FILTER: pb.FINISH_REASON_CONTENT_FILTER,
    FinishReason.REQUIRES_APPROVAL: pb.FINISH_REASON_REQUIRES_APPROVAL,
}
TOOL_OUTCOMES = {outcome.value: outcome for outcome in ToolOutcome}
_FINISH_REASONS_BACK = {number: reason for reason, number in FINISH_REASONS.items()}


def messages_from_turns(turns: Iterable[pb.Turn]) -> tuple[Message, ...]:
    """Returns all messages of the turns, in order."""
    return tuple([message_from_proto(message) for turn in turns for message in turn.messages])


def message_from_proto(message: pb.Message) -> Message:
    """Returns the message. Raises KeyError for a role that does not exist."""
    # A window has twenty: what most messages do not have is not converted.
    role = ROLES[message.role]
    parts, calls = message.parts, message.tool_calls
    if role is not Role.ASSISTANT:
        return Message(
            role,
            message.content,
            _parts_from_proto(parts) if parts else (),
            _calls_from_proto(calls) if calls else (),
            message.tool_call_id,
            message.name,
            message.refusal,
        )
    return Message(
        role,
        message.content,
        _parts_from_proto(parts) if parts else (),
        _calls_from_proto(calls) if calls else (),
        message.tool_call_id,
        message.name,
        message.refusal,
        message.reasoning,
        provider_data_from_proto(message.provider_data) if message.HasField("provider_data") else None,
    )


def message_to_proto(message: Message, keep_from: int | None = None) -> pb.Message:
    """Returns the message as proto; contents of `keep_from` bytes or more are replaced by digests."""
    out = pb.Message(role=ROLE_NUMBERS[message.role], content=message.content)
    for part in message.parts:
        if isinstance(part, TextPart):
            out.parts.add(text=part.text)
        else:
            _add_part(out, part, keep_from)
    for call in message.tool_calls:
        out.tool_calls.add(
            id=call.id,
            name=call.name,
            arguments=call.arguments,
            provider_data=provider_data_to_proto(call.provider_data),
        )
    if message.tool_call_id:
        out.tool_call_id = message.tool_call_id
    if message.name:
        out.name = message.name
    if message.refusal:
        out.refusal = message.refusal
    if message.reasoning:
        out.reasoning = message.reasoning
    if message.provider_data is not None:
        data = message.provider_data
        out.provider_data.CopyFrom(pb.ProviderData(kind=data.kind, provider=data.provider, json=data.json))
    return out


def _add_part(out: pb.Message, part: MediaPart, keep_from: int | None) -> None:
    content, added = content_of(part), out.parts.add()
    if part.kept is not None and (not content or (keep_from is not None and part.kept.size >= keep_from)):
        added.kept.digest, added.kept.size = part.kept.digest, part.kept.size
        content = ""
    if isinstance(part, ImagePart):
        added.image_url.url, added.image_url.detail = content, part.detail
    elif isinstance(part, AudioPart):
        added.input_audio.data, added.input_audio.format = content, part.format
    else:
        added.file.data, added.file.id, added.file.name = content, part.id, part.name


def provider_data_from_proto(data: pb.ProviderData) -> ProviderData:
    """Returns a provider's own data."""
    return ProviderData(data.kind, data.provider, data.json)


def provider_data_to_proto(data: ProviderData | None) -> pb.ProviderData | None:
    """Returns a provider's own data as proto."""
    return None if data is None else pb.ProviderData(kind=data.kind, provider=data.provider, json=data.json)


def turn_to_proto(turn: Turn, keep_from: int | None = None) -> pb.Turn:
    """Returns the turn as CommitTurn takes it; session_svc gives it its number. `keep_from`: see `message_to_proto`."""
    out = pb.Turn(
        id=turn.id,
        messages=[message_to_proto(message, keep_from) for message in turn.messages],
        agent_revision=turn.agent_revision,
        usage=usage_to_proto(turn.usage),
        finish_reason=FINISH_REASONS[turn.finish_reason],
        begin_time=to_timestamp(turn.begin_time),
        model=turn.model,
        details=_stored_details(turn.details),
    )
    if turn.answer_start is not None:
        out.answer_start = turn.answer_start
        out.awaiting_approval.extend(turn.awaiting)
    if turn.runs:
        out.tool_runs.extend(map(_run_to_proto, turn.runs))
    if turn.notes:
        out.request_notes = turn.notes
    if turn.listed is not None:
        out.tools_listed = tools_listed_to_bytes(turn.listed)
    if turn.unavailable:
        out.unavailable_tools.extend(unavailable_to_proto(turn.unavailable))
    if turn.handed_to:
        out.handed_to.extend(turn.handed_to)
    if turn.end_time is not None:
        out.end_time.CopyFrom(to_timestamp(turn.end_time))
    return out


def unavailable_to_proto(unavailable: Iterable[ToolsUnavailable]) -> list[pb.ToolsUnavailable]:
    """Returns the tools that a turn was without as proto."""
    return [pb.ToolsUnavailable(server=one.server, reason=one.reason) for one in unavailable]


def unavailable_from_proto(unavailable: Iterable[pb.ToolsUnavailable]) -> tuple[ToolsUnavailable, ...]:
    """Returns the tools that a turn was without, as its caller gets them."""
    return tuple([ToolsUnavailable(one.server, one.reason) for one in unavailable])


def _run_to_proto(run: ToolRun) -> pb.ToolRun:
    outcome = "" if run.outcome is ToolOutcome.OK else run.outcome.value
    out = pb.ToolRun(tool_call_id=run.call_id, server=run.server, outcome=outcome)
    if run.name:
        out.call.name, out.call.arguments = run.name, run.arguments
    return out


def _run_from_proto(run: pb.ToolRun) -> ToolRun:
    outcome = TOOL_OUTCOMES.get(run.outcome, ToolOutcome.UNKNOWN) if run.outcome else ToolOutcome.OK
    return ToolRun(run.tool_call_id, run.server, outcome, run.call.name, run.call.arguments)


def turn_from_proto(turn: pb.Turn) -> Turn:
    """Returns a stored turn."""
    return Turn(
        id=turn.id,
        messages=messages_from_turns((turn,)),
        agent_revision=turn.agent_revision,
        usage=usage_from_proto(turn.usage),
        finish_reason=finish_reason_from_proto(turn.finish_reason),
        begin_time=from_timestamp(turn.begin_time),
        model=turn.model,
        number=turn.number,
        details=details_from_proto(turn.details) if turn.HasField("details") else NO_DETAILS,
        answer_start=turn.answer_start if turn.HasField("answer_start") else None,
        awaiting=tuple(turn.awaiting_approval),
        runs=tuple(map(_run_from_proto, turn.tool_runs)) if turn.tool_runs else (),
        notes=turn.request_notes,
        end_time=from_timestamp(turn.end_time) if turn.HasField("end_time") else None,
        listed=tools_listed_from_bytes(turn.tools_listed),
        unavailable=unavailable_from_proto(turn.unavailable_tools) if turn.unavailable_tools else (),
        handed_to=tuple(turn.handed_to),
    )


def finish_reason_from_proto(number: int) -> FinishReason:
    """Returns the finish reason; `STOP` for unknown ones."""
    return _FINISH_REASONS_BACK.get(number, FinishReason.STOP)  # type: ignore[call-overload, no-any-return]


def usage_to_proto(usage: Usage) -> pb.Usage:
    """Returns token counts as proto."""
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )


def details_to_proto(details: AnswerDetails) -> pb.AnswerDetails | None:
    """Returns what the provider said about the answer as proto; None where it said nothing."""
    if details is NO_DETAILS:
        return None
    return pb.AnswerDetails(
        provider=details.provider,
        system_fingerprint=details.system_fingerprint,
        service_tier=details.service_tier,
        annotations=details.annotations,
        logprobs=details.logprobs,
    )


def _stored_details(details: AnswerDetails) -> pb.AnswerDetails | None:
    out = details_to_proto(details)
    if out is not None:
        out.ClearField("logprobs")
    return out


def details_from_proto(details: pb.AnswerDetails) -> AnswerDetails:
    """Returns what the provider said about the answer."""
    return AnswerDetails(
        details.provider, details.system_fingerprint, details.service_tier, details.annotations, details.logprobs
    )


def usage_from_proto(usage: pb.Usage) -> Usage:
    """Returns token counts."""
    return Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.cache_write_tokens,
    )


def _calls_from_proto(calls: Iterable[pb.ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(
        [
            ToolCall(
                call.id,
                call.name,
                call.arguments,
                provider_data_from_proto(call.provider_data) if call.HasField("provider_data") else None,
            )
            for call in calls
        ]
    )


def _parts_from_proto(parts: Iterable[pb.ContentPart]) -> tuple[Part, ...]:
    return tuple([_part_from_proto(part) for part in parts])


def _part_from_proto(part: pb.ContentPart) -> Part:
    kept = Kept(part.kept.digest, part.kept.size) if part.HasField("kept") else None
    match part.WhichOneof("part"):
        case "text":
            return TextPart(part.text)
        case "input_audio":
            return AudioPart(part.input_audio.data, part.input_audio.format, kept)
        case "file":
            return FilePart(part.file.data, part.file.id, part.file.name, kept)
    return ImagePart(part.image_url.url, part.image_url.detail, kept)


def awaiting_of(newest: pb.Turn, cancelled_turn_id: str) -> tuple[str, ...]:
    """Returns the calls of a session's newest turn that wait for approvals: none where the turn was cancelled."""
    waits = newest.awaiting_approval
    return tuple(waits) if waits and newest.id != cancelled_turn_id else ()
