import pytest

from chat_gateway.http_edge.wire.errors import error_headers
from chat_gateway.http_edge.wire.limit_headers import limit_headers, span
from chat_gateway.model.turn import LimitState
from servicekit.errors import Code, RemoteError


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0ms"),
        (0, "0ms"),
        (0.0201, "21ms"),
        (0.9991, "1s"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.9999, "1m0s"),
        (61.5, "1m1.5s"),
        (360, "6m0s"),
    ],
)
def test_spans_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_the_limit_that_is_closest_to_being_reached_is_reported() -> None:
    assert limit_headers(()) == []
    states = (LimitState("key:a", 1000, 7, 0.25), LimitState("agent:b", 10, 3, 60), LimitState("key:c", 9, 4, 1))
    assert limit_headers(states) == [
        (b"x-ratelimit-limit-requests", b"10"),
        (b"x-ratelimit-remaining-requests", b"3"),
        (b"x-ratelimit-reset-requests", b"1m0s"),
    ]


def rate_limited(bound: str, retry_after: float | None) -> RemoteError:
    metadata = {"scope": "key", "bound": bound, "limit": "60", "reset": "59.5"}
    return RemoteError(
        "no", code=Code.RESOURCE_EXHAUSTED, reason="RATE_LIMITED", metadata=metadata, retry_after=retry_after
    )


def test_a_refusal_says_when_to_ask_again() -> None:
    assert dict(error_headers(rate_limited("requests_per_minute", 1.0201))) == {
        b"x-should-retry": b"true",
        b"retry-after": b"2",
        b"retry-after-ms": b"1021",
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"0",
        b"x-ratelimit-reset-requests": b"59.5s",
    }
    assert dict(error_headers(rate_limited("concurrent_turns", 0.5))) == {
        b"x-should-retry": b"true",
        b"retry-after": b"1",
        b"retry-after-ms": b"500",
    }
    assert b"retry-after-ms" not in dict(error_headers(rate_limited("concurrent_turns", None)))
