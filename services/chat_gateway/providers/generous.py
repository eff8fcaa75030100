"""Lenient reading of provider responses, so that an odd value never costs an answer."""

import base64
import binascii
import json
import math
import re
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from chat_gateway.providers.adapter import BadAnswer

MAX_COUNT: Final = 2**31
"""No model call counts more tokens than this: what a provider says beyond it is not true."""

_MAX_DIGITS: Final = 20
_MAX_NAMES: Final = 64
_ANYTHING: Final = msgspec.json.Decoder()
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE: Final = msgspec.json.Encoder().encode
_MAX_RECODED: Final = 64 * 1024
"""Characters of base64 that are re-encoded for strict providers; more would take too long."""
_DATA_URL: Final = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;(?!base64,)[^,;]*)*(?P<coded>;base64)?,", re.I)


def decode(text: bytes) -> dict[str, Any]:
    """Returns a JSON object. Raises `BadAnswer`, also for nesting that is too deep.

    Malformed values are repaired: NaN becomes null, and invalid text U+FFFD.
    """
    try:
        try:
            said = _ANYTHING.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            said = _mended(text)
    except ValueError:
        raise BadAnswer("not JSON") from None
    except RecursionError:
        raise BadAnswer("JSON that is nested too deep") from None
    if not isinstance(said, dict):
        raise BadAnswer("not a JSON object")
    return said


def _mended(text: bytes) -> Any:
    plain = text.decode("utf-8-sig", "replace")
    return _sendable(json.loads(plain, parse_constant=lambda _: None, parse_int=_bounded))


def _bounded(digits: str) -> int:
    return int(digits) if len(digits) < _MAX_DIGITS else MAX_COUNT


def _sendable(said: Any) -> Any:
    """Returns JSON without halves of surrogate pairs, which can't be sent on."""
    if isinstance(said, str):
        return said if said.isascii() else said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(said, list):
        return [_sendable(one) for one in said]
    if isinstance(said, dict):
        return {_sendable(name): _sendable(one) for name, one in said.items()}
    return said


def count(said: object) -> int | None:
    """Returns a token count from 0 to `MAX_COUNT`, rounded; None for what is none."""
    if isinstance(said, str):
        try:
            said = float(said)
        except ValueError:
            return None
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    if isinstance(said, float) and not math.isfinite(said):  # an integer may be larger than any float
        return None
    return min(max(round(said), 0), MAX_COUNT)


def text(said: object) -> str:
    """Returns a text; empty for what is none."""
    return said if isinstance(said, str) else ""


def mapping(said: object) -> dict[str, Any]:
    """Returns a JSON object; empty for what is none."""
    return said if isinstance(said, dict) else {}


def listed(said: object) -> list[Any]:
    """Returns a list; what is an object or a text alone as one of it, and nothing for anything else."""
    if isinstance(said, list):
        return said
    return [said] if isinstance(said, dict | str) else []


def add_counts(counts: dict[str, int], usage: dict[str, Any]) -> None:
    """Adds a report of token counts to earlier ones, which stay valid where it has none; `_MAX_NAMES` at most."""
    for name, said in usage.items():
        if (name in counts or len(counts) < _MAX_NAMES) and (tokens := count(said)) is not None:
            counts[name] = tokens or counts.get(name, 0)


def arguments(said: object) -> str:
    """Returns a call's arguments as JSON text, whether they came as an object or as text."""
    if isinstance(said, str):
        return said or "{}"
    return "{}" if said is None else _ENCODE(said).decode()


def as_object(arguments_text: str) -> Any:
    """Returns a call's arguments as a JSON object to be sent, whatever a model had written."""
    try:
        coded = (arguments_text or "{}").encode()
        _OBJECT.decode(coded)
        return msgspec.Raw(coded)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {"invalid_arguments": arguments_text}


def picture(url: str) -> tuple[str, str] | None:
    """Returns the media type and the base64 of a `data:` URL; None for any other URL, or where it holds nothing."""
    match = _DATA_URL.match(url)
    if match is None:
        return None
    rest = url[match.end() :]
    if match["coded"] and len(rest) > _MAX_RECODED:
        return (match["type"] or "text/plain").lower(), rest  # as the edges have checked it
    raw = unquote_to_bytes(rest)
    if match["coded"]:
        try:
            raw = base64.b64decode(raw, validate=False)
        except (binascii.Error, ValueError):
            return None
    return ((match["type"] or "text/plain").lower(), base64.b64encode(raw).decode()) if raw else None
