"""The tools that a server offers, bounded and as plain text for a model."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from servicekit.values import value

MAX_LISTED = 10_000
"""Tools of one server that are kept to choose from."""
MAX_LISTED_BYTES = 4 * 1024 * 1024
"""Of their descriptions and schemas."""
MAX_DESCRIPTION = 4096
MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 64

_ANY_OBJECT: Mapping[str, Any] = {"type": "object", "properties": {}}
# Control characters but for tabs and line ends, and those that change how text is shown (Trojan Source).
_UNWANTED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


@value
class OfferedTool:
    """A tool under its server's own name. `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    idempotent: bool = False


@value
class Offer:
    """The tools of one server, each name once. `left_out` counts those beyond the bounds."""

    tools: tuple[OfferedTool, ...]
    left_out: int = 0


def offer(tools: Iterable[OfferedTool], clean: Callable[[str], str]) -> Offer:
    """Returns what of a server's tools can be offered; of several of one name, the first. `clean` removes secrets."""
    kept: dict[str, OfferedTool] = {}
    left_out = 0
    left = MAX_LISTED_BYTES
    for tool in tools:
        name = clean(tool.name)
        if not name or name in kept or name != tool.name:
            continue  # a name with a secret in it could not be called without the secret
        description = plain_text(clean(tool.description), MAX_DESCRIPTION)
        parameters, size = _bounded_schema(tool.parameters, clean)
        left -= len(description) + size
        if left < 0 or len(kept) >= MAX_LISTED:
            left_out += 1
            continue
        kept[name] = OfferedTool(name, description, parameters, tool.idempotent)
    return Offer(tuple(kept.values()), left_out)


def plain_text(text: str, limit: int) -> str:
    """Returns the text without what controls terminals or hides text, and at most `limit` characters of it."""
    text = _UNWANTED.sub("", text[: 4 * limit])
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _bounded_schema(schema: Mapping[str, Any], clean: Callable[[str], str]) -> tuple[Mapping[str, Any], int]:
    """Returns the schema and its size as JSON; one that can't be a tool's becomes that of any object."""
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object" or _too_deep(schema):
        return _ANY_OBJECT, 0
    try:
        text = json.dumps(schema, ensure_ascii=True, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return _ANY_OBJECT, 0
    if len(text) > MAX_SCHEMA_BYTES:
        return _ANY_OBJECT, 0
    cleaned = clean(text)
    if cleaned != text:
        schema = json.loads(cleaned)
    return {"type": "object", "properties": {}, **schema}, len(text)


def _too_deep(schema: Any) -> bool:
    level = [schema]
    for _ in range(MAX_SCHEMA_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, Mapping) else one)
            if isinstance(inner, Mapping | list)
        ]
        if not level:
            return False
    return True
