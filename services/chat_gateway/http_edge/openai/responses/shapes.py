"""Reads JSON into shapes, and notes everything that is wrong with it, by its path."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from chat_gateway.http_edge.wire.bodies import wrong_shape
from servicekit.errors import Violations

S = TypeVar("S", bound=msgspec.Struct)
MAX_SHOWN = 64


def shaped(kind: type[S], value: Any, path: str, found: Violations) -> S | None:
    """Returns the value as one of this shape; None, with what is wrong noted, where it is not."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        _note(error, path, found)
        return None


def shaped_by_type(
    kinds: Mapping[str, type[msgspec.Struct]], value: Any, path: str, found: Violations, default: str = ""
) -> msgspec.Struct | None:
    """Returns the value in the shape of its `type`, which may be left out where there is a default."""
    name = value.get("type") or default
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        said = f"{str(name)[:MAX_SHOWN]!r} is not supported" if name else "is required"
        found.add(f"{path}.type", f"{said}: must be one of {', '.join(kinds)}" if name else said)
        return None
    return shaped(kind, {**value, "type": name}, path, found)


def decoded(decoder: "msgspec.json.Decoder[Any]", raw: msgspec.Raw, path: str, found: Violations) -> Any:
    """Returns what a decoder makes of JSON; None, with what is wrong noted, where it does not take it."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        _note(error, path, found)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found.add(path, "is not JSON that can be read")
    return None


def _note(error: msgspec.ValidationError, path: str, found: Violations) -> None:
    [violation] = wrong_shape(str(error)).violations
    inner = violation.field
    separator = "" if not inner or inner.startswith("[") else "."
    found.add(f"{path}{separator}{inner}", violation.description)
