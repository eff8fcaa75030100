"""The shapes of a response and of what is listed of it."""

from typing import Any

import msgspec

Item = dict[str, Any]


class ConversationOf(msgspec.Struct):
    """The conversation that a response is in."""

    id: str


class ResponseError(msgspec.Struct, omit_defaults=True):
    """Why a response failed."""

    code: str
    """One of OpenAI's codes."""
    message: str
    type: str
    """The reason, a value of `parley.errors.v1.Reason`, in lower case."""
    param: str | None = None


class IncompleteDetails(msgspec.Struct):
    """Why an answer was cut: `max_output_tokens` or `content_filter`."""

    reason: str


class InputTokensDetails(msgspec.Struct):
    """Of the input tokens, those that the provider had cached, and those that it wrote into its cache."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(msgspec.Struct):
    """Of the output tokens, those that the model thought with."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct):
    """Tokens of all model calls of the turn."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class Response(msgspec.Struct, kw_only=True):
    """A response: a turn of an agent."""

    id: str
    object: str = "response"
    created_at: int
    completed_at: int | None
    status: str
    """`queued`, `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`."""
    background: bool
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None = None
    model: str
    output: list[Item]
    """What the agent did: messages, calls, what it thought."""
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: ConversationOf | None
    """The session; null for a stateless turn."""
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    truncation: str
    usage: ResponseUsage | None
    user: str | None
    metadata: dict[str, str]


class CompactedResponse(msgspec.Struct, kw_only=True):
    """A conversation that was made shorter."""

    id: str
    object: str = "response.compaction"
    created_at: int
    output: list[Item]
    """What users have said, and an item of type `compaction`."""
    usage: ResponseUsage


class ItemList(msgspec.Struct, kw_only=True):
    """A page of items."""

    object: str = "list"
    data: list[Item]
    first_id: str
    """Empty where the page is."""
    last_id: str
    has_more: bool


class ResponseDeleted(msgspec.Struct, kw_only=True):
    """The response is no longer stored."""

    id: str
    object: str = "response"
    deleted: bool = True
