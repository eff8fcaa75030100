"""Token counts, by the names that servers have for them."""

from typing import Final

import msgspec

from chat_gateway.model.turn import Usage

MAX_TOKENS: Final = 2**31
"""No model call counts more tokens than this: what a provider says beyond it is not true."""


class PromptDetails(msgspec.Struct):
    """Where prompt tokens came from, and went to."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """What completion tokens were for."""

    reasoning_tokens: int | None = None


class UpstreamUsage(msgspec.Struct):
    """Token counts."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's name for cached tokens."""
    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: PromptDetails | None = None
    output_tokens_details: CompletionDetails | None = None
    """Names of OpenAI's other API, which some servers have in this one."""


def to_usage(usage: UpstreamUsage | None) -> Usage:
    """Returns the token counts, each from 0 to `MAX_TOKENS`; zeros for what the provider did not count."""
    if usage is None:
        return Usage()
    prompt = usage.prompt_tokens_details or usage.input_tokens_details
    completion = usage.completion_tokens_details or usage.output_tokens_details
    cached = prompt.cached_tokens if prompt and prompt.cached_tokens is not None else usage.prompt_cache_hit_tokens
    asked = usage.input_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    answered = usage.output_tokens if usage.completion_tokens is None else usage.completion_tokens
    if answered is None and asked is not None and usage.total_tokens is not None:
        answered = usage.total_tokens - asked
    return Usage(
        _tokens(asked),
        _tokens(answered),
        _tokens(cached),
        _tokens(completion.reasoning_tokens) if completion else 0,
        _tokens(prompt.cache_write_tokens) if prompt else 0,
    )


def grown(usage: Usage, more: Usage) -> Usage:
    """Returns the counts of a report added to earlier ones, which stay valid where it has none."""
    return Usage(
        more.prompt_tokens or usage.prompt_tokens,
        more.completion_tokens or usage.completion_tokens,
        more.cached_tokens or usage.cached_tokens,
        more.reasoning_tokens or usage.reasoning_tokens,
        more.cache_write_tokens or usage.cache_write_tokens,
    )


def _tokens(count: int | None) -> int:
    return min(max(count or 0, 0), MAX_TOKENS)
