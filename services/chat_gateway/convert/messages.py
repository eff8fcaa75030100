"""Messages and turns between the domain and `parley.session.v1`."""

from collections.abc import Iterable

from chat_gateway.convert.times import from_timestamp, to_timestamp
from chat_gateway.model.turn import (
    FinishReason,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    Turn,
    Usage,
)
from contract.wire import ROLE_NUMBERS, ROLES
from parley.session.v1 import message_pb2 as pb

FINISH_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.TOOL_CALLS: pb.FINISH_REASON_TOOL_CALLS,
    FinishReason.CONTENT_FILTER: pb.FINISH_REASON_CONTENT_FILTER,
}
_FINISH_REASONS_BACK = {number: reason for reason, number in FINISH_REASONS.items()}


def messages_from_turns(turns: Iterable[pb.Turn]) -> tuple[Message, ...]:
    """Returns all messages of the turns, in order."""
    return tuple([message_from_proto(message) for turn in turns for message in turn.messages])


def message_from_proto(message: pb.Message) -> Message:
    """Returns the message. Raises KeyError for a role that does not exist."""
    # A window has twenty: what most messages do not have is not converted.
    parts, calls = message.parts, message.tool_calls
    return Message(
        ROLES[message.role],
        message.content,
        _parts_from_proto(parts) if parts else (),
        tuple([ToolCall(call.id, call.name, call.arguments) for call in calls]) if calls else (),
        message.tool_call_id,
        message.name,
        message.refusal,
    )


def message_to_proto(message: Message) -> pb.Message:
    """Returns the message as proto."""
    out = pb.Message(role=ROLE_NUMBERS[message.role], content=message.content)
    for part in message.parts:
        if isinstance(part, TextPart):
            out.parts.add(text=part.text)
        else:
            out.parts.add(image_url=pb.ImageUrl(url=part.url, detail=part.detail))
    for call in message.tool_calls:
        out.tool_calls.add(id=call.id, name=call.name, arguments=call.arguments)
    if message.tool_call_id:
        out.tool_call_id = message.tool_call_id
    if message.name:
        out.name = message.name
    if message.refusal:
        out.refusal = message.refusal
    return out


def turn_to_proto(turn: Turn) -> pb.Turn:
    """Returns the turn as CommitTurn takes it; session_svc gives it its number."""
    return pb.Turn(
        id=turn.id,
        messages=[message_to_proto(message) for message in turn.messages],
        agent_revision=turn.agent_revision,
        usage=usage_to_proto(turn.usage),
        finish_reason=FINISH_REASONS[turn.finish_reason],
        begin_time=to_timestamp(turn.begin_time),
        model=turn.model,
    )


def turn_from_proto(turn: pb.Turn) -> Turn:
    """Returns a stored turn."""
    return Turn(
        id=turn.id,
        messages=messages_from_turns((turn,)),
        agent_revision=turn.agent_revision,
        usage=Usage(turn.usage.prompt_tokens, turn.usage.completion_tokens, turn.usage.cached_tokens),
        finish_reason=_FINISH_REASONS_BACK.get(turn.finish_reason, FinishReason.STOP),
        begin_time=from_timestamp(turn.begin_time),
        model=turn.model,
        number=turn.number,
    )


def usage_to_proto(usage: Usage) -> pb.Usage:
    """Returns token counts as proto."""
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
    )


def _parts_from_proto(parts: Iterable[pb.ContentPart]) -> tuple[TextPart | ImagePart, ...]:
    return tuple(
        TextPart(part.text)
        if part.WhichOneof("part") == "text"
        else ImagePart(part.image_url.url, part.image_url.detail)
        for part in parts
    )
