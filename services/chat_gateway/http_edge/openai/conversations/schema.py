"""The shapes of conversations."""

from typing import Any

import msgspec


class Conversation(msgspec.Struct, kw_only=True):
    """A conversation: a session."""

    id: str
    object: str = "conversation"
    created_at: int
    metadata: dict[str, str]


class NewConversation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A conversation to make. It belongs to the agent of its first response."""

    metadata: dict[str, str] | None = None
    items: list[dict[str, Any]] | None = None
    """What was said before, as the input of a response."""


class ConversationPatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be changed of a conversation."""

    metadata: dict[str, str] | None
    """Replaces the metadata; null: none."""


class NewItems(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Items to add to a conversation, without an answer of its agent."""

    items: list[dict[str, Any]]


class ConversationDeleted(msgspec.Struct, kw_only=True):
    """The conversation is no longer stored."""

    id: str
    object: str = "conversation.deleted"
    deleted: bool = True
