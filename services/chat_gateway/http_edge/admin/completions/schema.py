"""Stored chat completions in OpenAI's format, from stored turns."""

from typing import Any

import msgspec

from chat_gateway.convert.messages import turn_from_proto
from chat_gateway.http_edge.admin.sessions.schema import content_json
from chat_gateway.http_edge.openai.chat.answer import completion_object, completion_state
from chat_gateway.http_edge.openai.chat.ids import completion_id
from chat_gateway.http_edge.openai.chat.schema import ChatCompletion, ContentPart, FunctionCall, ToolCall
from chat_gateway.model.background import TurnState
from chat_gateway.model.turn import TurnOutcome
from chat_gateway.outcomes import stored_outcome
from contract.wire import ROLES
from parley.session.v1 import message_pb2 as pb
from parley.session.v1.session_service_pb2 import Session


class StoredCompletion(ChatCompletion):
    """A stored chat completion: a turn of a session. Its model is the agent, its metadata are those of the session."""

    metadata: dict[str, str] = msgspec.field(default_factory=dict)


class CompletionList(msgspec.Struct, kw_only=True):
    """A page of stored chat completions."""

    data: list[StoredCompletion]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None
    object: str = "list"


class CompletionPatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be changed of a stored chat completion."""

    metadata: dict[str, str] | None
    """Replaces the metadata of the session; null: none."""


class CompletionDeleted(msgspec.Struct, kw_only=True):
    """The completion is no longer stored."""

    id: str
    deleted: bool = True
    object: str = "chat.completion.deleted"


class StoredMessage(msgspec.Struct, kw_only=True):
    """A message that a stored chat completion answered."""

    id: str
    role: str
    content: str | None
    content_parts: list[ContentPart] | None = None
    """Where the message has parts: these."""
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    tool_call_id: str | msgspec.UnsetType = msgspec.UNSET


class MessageList(msgspec.Struct, kw_only=True):
    """A page of messages."""

    data: list[StoredMessage]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None
    object: str = "list"


def stored_completion(turn: pb.Turn, session: Session) -> StoredCompletion:
    """Returns a turn of a session as the completion that answered it."""
    whole = completion_object(outcome_of(turn, session), session.agent_id)
    whole.status = "requires_approval" if turn.awaiting_approval else "completed"
    fields = {name: getattr(whole, name) for name in whole.__struct_fields__}
    return StoredCompletion(**fields, metadata=dict(session.metadata))


def state_of_completion(state: TurnState) -> StoredCompletion:
    """Returns a turn, as far as it is."""
    whole = completion_state(state)
    return StoredCompletion(**{name: getattr(whole, name) for name in whole.__struct_fields__})


def outcome_of(turn: pb.Turn, session: Session) -> TurnOutcome:
    """Returns how a turn of a session ended."""
    return stored_outcome(turn_from_proto(turn), session.id)


def stored_messages(turn: pb.Turn, session: Session) -> list[StoredMessage]:
    """Returns the messages of a turn that its completion answered, oldest first."""
    whole = completion_id(turn.id, session.id)
    answer_start = turn.answer_start if turn.HasField("answer_start") else -1
    asked = list(turn.messages)[:answer_start]
    return [_message(message, f"{whole}-{number}") for number, message in enumerate(asked)]


def _message(message: pb.Message, message_id: str) -> StoredMessage:
    content: Any = content_json(message)
    parts = content if isinstance(content, list) else None
    return StoredMessage(
        id=message_id,
        role=ROLES.get(message.role, "unknown"),
        content=None if parts is not None else content,
        content_parts=parts,
        name=message.name or None,
        refusal=message.refusal or None,
        tool_calls=[ToolCall(call.id, FunctionCall(call.name, call.arguments)) for call in message.tool_calls]
        or msgspec.UNSET,
        tool_call_id=message.tool_call_id or msgspec.UNSET,
    )
