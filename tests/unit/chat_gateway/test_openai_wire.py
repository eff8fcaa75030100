"""What providers answer, as values of the gateway's own."""

import msgspec
import pytest

from chat_gateway.model.turn import Usage
from chat_gateway.providers.openai.usage import MAX_TOKENS, to_usage
from chat_gateway.providers.openai.wire import decode_completion, said


@pytest.mark.parametrize(
    ("usage", "counted"),
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
def test_token_counts_are_bounded_whatever_a_provider_says(usage: str, counted: Usage) -> None:
    completion = decode_completion(f'{{"choices": [], "usage": {usage}}}'.encode())
    assert to_usage(completion.usage) == counted


@pytest.mark.parametrize("raw", [b'{"a": "\xed\xa0\x80"}', b'["\\ud800"]', b"[1e999]", b"\xff"])
def test_json_that_nobody_could_read_is_not_passed_on(raw: bytes) -> None:
    assert said(msgspec.Raw(raw)) == b""
    assert said(msgspec.Raw(b'{"content": ["\xc3\xa4"]}')) == b'{"content": ["\xc3\xa4"]}'
