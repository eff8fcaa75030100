"""Tokens, as providers count them."""

from servicekit.values import value


@value
class Usage:
    """Tokens that the provider counted. Reasoning's are among the completion's, the cache's among the prompt's."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0


NO_USAGE = Usage()


def added(one: Usage, other: Usage) -> Usage:
    """Returns the tokens of both."""
    if one is NO_USAGE:
        return other
    if other is NO_USAGE:
        return one
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cached_tokens + other.cached_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
        one.cache_write_tokens + other.cache_write_tokens,
    )
