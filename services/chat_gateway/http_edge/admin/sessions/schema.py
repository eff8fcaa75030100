"""Sessions and their messages: protobuf to JSON and back."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from chat_gateway.http_edge.openai.chat.ids import completion_id
from chat_gateway.http_edge.openai.chat.schema import (
    ContentPart,
    FunctionCall,
    ImageUrl,
    InputAudio,
    InputFile,
    ToolCall,
)
from chat_gateway.http_edge.wire.times import proto_timestamp, seconds_of
from contract.wire import ROLES
from parley.session.v1 import message_pb2 as pb
from parley.session.v1.session_service_pb2 import EraseUserResponse, Session


class UsageJson(msgspec.Struct, kw_only=True):
    """Tokens of a turn, or of all turns of a session."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Of the prompts, those that the provider had cached."""
    reasoning_tokens: int = 0
    """Of the completions, those that the model thought with."""
    cache_write_tokens: int = 0
    """Of the prompts, those that the provider wrote into its cache."""


class SessionJson(msgspec.Struct, kw_only=True):
    """A conversation between one user and one agent, which expires."""

    id: str
    agent_id: str
    agent_uid: str
    user_id: str
    agent_revision: int
    pinned_revision: int
    turn_count: int
    message_count: int
    usage: UsageJson
    metadata: dict[str, str]
    create_time: str
    last_activity_time: str
    expire_time: str
    idle_ttl: str
    max_lifetime: str
    running_completion_id: str | None = None
    """The chat completion that runs now, whose events can be followed; null while none does."""
    object: str = "session"


class SessionMessageJson(msgspec.Struct, kw_only=True):
    """One message in OpenAI's form, with the turn that it belongs to."""

    role: str
    content: str | list[ContentPart] | None
    turn_number: int
    turn_id: str
    create_time: str
    """When its turn began."""
    agent_revision: int
    name: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    """What the model thought before it answered."""
    finish_reason: str | UnsetType = UNSET
    """The turn's; on its answer only, as are the two below."""
    model: str | UnsetType = UNSET
    """The provider's model that answered."""
    usage: UsageJson | UnsetType = UNSET
    object: str = "session.message"


class SessionPatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """JSON merge patch (RFC 7396): omitted fields stay; null clears."""

    metadata: dict[str, str | None] | UnsetType | None = UNSET
    idle_ttl: str | UnsetType | None = UNSET
    pinned_revision: Annotated[int, Meta(ge=0, le=2**63 - 1)] | UnsetType | None = UNSET


class ForkBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where to fork to."""

    id: str | None = None
    """The new session's id; generated when omitted."""
    up_to_turn: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    """The last turn to copy; all when omitted."""


class PurgeBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which sessions to delete: at least one field is required, and a session must match all that are given."""

    agent_id: str | None = None
    user_id: str | None = None
    idle_longer_than: str | None = None
    """Last activity longer ago than this, such as `"3600s"`."""


class Purged(msgspec.Struct, kw_only=True):
    """How many sessions were deleted."""

    deleted: int


class UserJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The user that a request is about."""

    user_id: Annotated[str, Meta(min_length=1)] | None = None
    """May be omitted by callers that are bound to one user."""


class ErasureJson(msgspec.Struct, kw_only=True):
    """The receipt of an erasure."""

    user_id: str
    deleted_sessions: int
    """With their idempotency records."""
    deleted_turns: int
    pseudonymized_audit_events: int
    revoked_api_keys: int
    """Keys that were bound to the user."""
    erase_time: str
    object: str = "user.erasure"


def session_json(session: Session) -> SessionJson:
    """Returns a session as clients see it."""
    return SessionJson(
        id=session.id,
        agent_id=session.agent_id,
        agent_uid=session.agent_uid,
        user_id=session.user_id,
        agent_revision=session.agent_revision,
        pinned_revision=session.pinned_revision,
        turn_count=session.turn_count,
        message_count=session.message_count,
        usage=_usage_json(session.usage),
        metadata=dict(session.metadata),
        create_time=proto_timestamp(session.create_time),
        last_activity_time=proto_timestamp(session.last_activity_time),
        expire_time=proto_timestamp(session.expire_time),
        idle_ttl=seconds_of(session.idle_ttl),
        max_lifetime=seconds_of(session.max_lifetime),
        running_completion_id=completion_id(session.running_turn_id, session.id) if session.running_turn_id else None,
    )


def _usage_json(usage: pb.Usage) -> UsageJson:
    return UsageJson(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )


def messages_json(turn: pb.Turn) -> list[SessionMessageJson]:
    """Returns a turn's messages in order."""
    begun = proto_timestamp(turn.begin_time)
    messages = [_message_json(message, turn, begun) for message in turn.messages]
    if messages and turn.HasField("usage"):
        messages[-1].model, messages[-1].usage = turn.model or UNSET, _usage_json(turn.usage)
    if messages and turn.finish_reason:
        messages[-1].finish_reason = pb.FinishReason.Name(turn.finish_reason).removeprefix("FINISH_REASON_").lower()
    return messages


def erasure_json(user_id: str, receipt: EraseUserResponse) -> ErasureJson:
    """Returns the receipt of an erasure as clients see it."""
    return ErasureJson(
        user_id=user_id,
        deleted_sessions=receipt.session_count,
        deleted_turns=receipt.turn_count,
        pseudonymized_audit_events=receipt.audit_event_count,
        revoked_api_keys=receipt.revoked_api_key_count,
        erase_time=proto_timestamp(receipt.erase_time),
    )


def _message_json(message: pb.Message, turn: pb.Turn, begun: str) -> SessionMessageJson:
    return SessionMessageJson(
        role=ROLES.get(message.role, "unknown"),
        content=content_json(message),
        turn_number=turn.number,
        turn_id=turn.id,
        create_time=begun,
        agent_revision=turn.agent_revision,
        name=message.name or UNSET,
        tool_calls=[
            ToolCall(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))
            for call in message.tool_calls
        ]
        or UNSET,
        tool_call_id=message.tool_call_id or UNSET,
        refusal=message.refusal or UNSET,
        reasoning_content=message.reasoning or UNSET,
    )


def content_json(message: pb.Message) -> Any:
    """Returns the content of a message as OpenAI writes it: a text, a list of parts, or null."""
    if message.parts:
        return [_part_json(part) for part in message.parts]
    return message.content or (None if message.tool_calls or message.refusal or message.reasoning else "")


def _part_json(part: pb.ContentPart) -> ContentPart:
    match part.WhichOneof("part"):
        case "image_url":
            return ContentPart(type="image_url", image_url=ImageUrl(part.image_url.url, part.image_url.detail or None))
        case "input_audio":
            return ContentPart(
                type="input_audio", input_audio=InputAudio(part.input_audio.data, part.input_audio.format)
            )
        case "file":
            file = InputFile(part.file.data or None, part.file.id or None, part.file.name or None)
            return ContentPart(type="file", file=file)
    return ContentPart(type="text", text=part.text)
