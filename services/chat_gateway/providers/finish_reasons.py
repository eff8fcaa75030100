"""The finish reasons of every kind of provider. An unknown one is never a success."""

import re
from typing import Final

from chat_gateway.model.turn import FinishReason

FINISH_REASONS: Final = {
    **dict.fromkeys(
        (
            "stop",
            "eos",
            "eos_token",
            "end_turn",
            "stop_sequence",
            "complete",
            "completed",
            "stop_word",
            "stop_token",
            "end_of_turn",
        ),
        FinishReason.STOP,
    ),
    **dict.fromkeys(
        (
            "length",
            "max_length",
            "max_tokens",
            "max_new_tokens",
            "max_completion_tokens",
            "max_output_tokens",
            "model_length",
            "model_context_window_exceeded",
            "token_limit",
        ),
        FinishReason.LENGTH,
    ),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), FinishReason.TOOL_CALLS),
    **dict.fromkeys(
        (
            "content_filter",
            "content_filtered",
            "safety",
            "recitation",
            "blocklist",
            "prohibited_content",
            "spii",
            "image_safety",
            "refusal",
            "guardrail_intervened",
            "sensitive",
            "error_toxic",
            "censored",
            "content_policy_violation",
            "moderation",
        ),
        FinishReason.CONTENT_FILTER,
    ),
}
"""In lower case."""


_PREFIX: Final = re.compile(r"^finish_?reason[._]")
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


def finish_reason(said: str) -> FinishReason | None:
    """Returns what a provider's word means, however it is written (`maxTokens`, `FINISH_REASON_STOP`); None for a
    failure and for any other.
    """
    if (known := FINISH_REASONS.get(said)) is not None:
        return known
    word = _HUMP.sub("_", said.strip()[:100]).lower().replace("-", "_")
    return FINISH_REASONS.get(_PREFIX.sub("", word))
