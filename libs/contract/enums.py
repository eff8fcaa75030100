"""Enumerations of the contract that domain models share. Their numbers on the wire are in `contract.wire`."""

import enum


class Role(enum.StrEnum):
    """Who speaks, by OpenAI's names."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class BusyPolicy(enum.StrEnum):
    """What a caller gets while another turn of the session is running."""

    WAIT = "wait"
    REJECT = "reject"
    INTERRUPT = "interrupt"


class FallbackTrigger(enum.StrEnum):
    """What a fallback is tried for beyond what every fallback is."""

    CONTENT_FILTER = "content_filter"
    CONTEXT_LENGTH = "context_length"


class HistoryPolicy(enum.StrEnum):
    """What a request of a session that holds answers of the assistant is to the history."""

    MATCH = "match"
    """The caller's transcript: what of it is stored is not stored again, and what contradicts is refused."""
    REPLACE = "replace"
    """The caller's transcript, and the history from now on."""
    APPEND = "append"
    """More of the conversation, such as examples."""
