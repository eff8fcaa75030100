"""Enumerations of the contract that domain models share. Their numbers on the wire are in `contract.wire`."""

import enum


class Role(enum.StrEnum):
    """The role of a message, with OpenAI's names."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class BusyPolicy(enum.StrEnum):
    """What happens to a turn while another one of its session is running."""

    WAIT = "wait"
    REJECT = "reject"
    INTERRUPT = "interrupt"


class FallbackTrigger(enum.StrEnum):
    """Additional errors for which a fallback is tried."""

    CONTENT_FILTER = "content_filter"
    CONTEXT_LENGTH = "context_length"


class HistoryPolicy(enum.StrEnum):
    """How the messages of a request that contains assistant messages relate to the session's history."""

    MATCH = "match"
    """The caller's transcript: stored messages are not stored again, and contradictions are refused."""
    REPLACE = "replace"
    """The caller's transcript, which replaces the history."""
    APPEND = "append"
    """Further messages, such as examples, which are appended."""
