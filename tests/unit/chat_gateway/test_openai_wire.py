"""What providers answer, as values of the gateway's own."""

import pytest

from chat_gateway.model.turn import Usage
from chat_gateway.providers.openai.wire import MAX_TOKENS, decode_completion, to_usage


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        ("null", Usage(0, 0, 0)),
        ("{}", Usage(0, 0, 0)),
        ('{"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}', Usage(3, 2, 1)),
        ('{"prompt_tokens": -3, "completion_tokens": 2}', Usage(0, 2, 0)),
        (
            '{"prompt_tokens": 9223372036854775807, "completion_tokens": 99999999999999999999, '
            '"prompt_tokens_details": {"cached_tokens": 2147483649}}',
            Usage(MAX_TOKENS, MAX_TOKENS, MAX_TOKENS),
        ),
    ],
)
def test_token_counts_are_bounded_whatever_a_provider_says(said: str, counted: Usage) -> None:
    completion = decode_completion(f'{{"choices": [], "usage": {said}}}'.encode())
    assert to_usage(completion.usage) == counted
