"""The finish reasons of every kind of provider. An unknown one is never a success."""

from typing import Final

from chat_gateway.model.turn import FinishReason

FINISH_REASONS: Final = {
    **dict.fromkeys(
        ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed"), FinishReason.STOP
    ),
    **dict.fromkeys(
        ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"),
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
        ),
        FinishReason.CONTENT_FILTER,
    ),
}
"""In lower case."""


def finish_reason(said: str) -> FinishReason | None:
    """Returns what a provider's word means, in whatever case it is written; None for a failure and for any other."""
    return FINISH_REASONS.get(said) or FINISH_REASONS.get(said.strip().lower().replace("-", "_"))
