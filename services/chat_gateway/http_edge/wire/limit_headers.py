"""The headers in which OpenAI's API reports limits on requests, which its clients read."""

import math

from chat_gateway.model.turn import LimitState
from contract.reasons import Reason
from servicekit.errors import ServiceError

Headers = list[tuple[bytes, bytes]]

_BY_REQUESTS = "requests_per_minute"


def limit_headers(states: tuple[LimitState, ...]) -> Headers:
    """Returns `x-ratelimit-…-requests` of the limit that is closest to being reached; none if no limit is set."""
    if not states:
        return []
    nearest = min(states, key=lambda state: (state.remaining, state.requests_per_minute))
    return _headers(nearest.requests_per_minute, nearest.remaining, nearest.reset)


def refusal_headers(error: ServiceError) -> Headers:
    """Returns the headers of a refusal by a limit: when to retry, and what the limit is."""
    if error.reason != Reason.RATE_LIMITED:
        return []
    headers: Headers = []
    if error.retry_after is not None:
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(error.retry_after * 1000))))
    metadata = error.metadata
    if metadata.get("bound") == _BY_REQUESTS and metadata.get("limit", "").isdigit():
        headers += _headers(int(metadata["limit"]), 0, _seconds(metadata.get("reset", "")))
    return headers


def span(seconds: float) -> str:
    """Returns a span of time as OpenAI writes it: `20ms`, `1s`, `8.64s`, `6m0s`."""
    milliseconds = math.ceil(max(seconds, 0.0) * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{text}s" if minutes else f"{text}s"


def _headers(limit: int, remaining: int, reset: float) -> Headers:
    return [
        (b"x-ratelimit-limit-requests", b"%d" % limit),
        (b"x-ratelimit-remaining-requests", b"%d" % remaining),
        (b"x-ratelimit-reset-requests", span(reset).encode()),
    ]


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
