"""Log probabilities of an answer's tokens, as a chat completion has them and as an output text does."""

import math
from typing import Any

import msgspec


def logprobs_of(data: bytes) -> list[dict[str, Any]]:
    """Returns the `logprobs` of a choice as those of an output text; what of it can't be read is left out."""
    try:
        said = msgspec.json.decode(data) if data else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    content = said.get("content") if isinstance(said, dict) else None
    return [_logprob(one) for one in content if isinstance(one, dict)] if isinstance(content, list) else []


def _logprob(said: dict[str, Any]) -> dict[str, Any]:
    top = said.get("top_logprobs")
    others = [_token(one) for one in top if isinstance(one, dict)] if isinstance(top, list) else []
    return _token(said) | {"top_logprobs": others}


def _token(said: dict[str, Any]) -> dict[str, Any]:
    token = str(said.get("token", ""))
    sent = said.get("bytes")
    is_bytes = isinstance(sent, list) and all(type(one) is int for one in sent)
    return {
        "token": token,
        "logprob": _number(said.get("logprob")),
        "bytes": sent if is_bytes else list(token.encode("utf-8", "replace")),
    }


def _number(value: Any) -> float:
    """Returns the number; 0 for what is none, and for what no number of JSON's is."""
    try:
        number = float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0
    return number if math.isfinite(number) else 0.0
