"""Reads JSON into shapes, and notes everything that is wrong with it, by its path."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from chat_gateway.http_edge.wire.bodies import wrong_shape
from chat_gateway.model.provider_errors import FieldsUnsupported
from servicekit.errors import InvalidArgument, Violations

S = TypeVar("S", bound=msgspec.Struct)
MAX_SHOWN = 64


_UNKNOWN = "is not a field"


class Findings(Violations):
    """What is wrong with a request: what it must not say, and what is not taken, though it may be right elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self._refused: set[str] = set()

    def refuse(self, field: str, description: str) -> None:
        """Notes what is not taken."""
        self._refused.add(field)
        self.add(field, description)

    def check(self) -> None:
        """Raises `FieldsUnsupported` where nothing is wrong but what is not taken, `InvalidArgument` otherwise."""
        try:
            super().check()
        except InvalidArgument as error:
            if self.fields() <= self._refused:
                raise FieldsUnsupported(error.violations) from None
            raise


def shaped(kind: type[S], value: Any, path: str, found: Findings) -> S | None:
    """Returns the value as one of this shape; None, with what is wrong noted, where it is not.

    A field that the shape does not have may be null, which says nothing: clients write all fields of their own types.
    """
    if isinstance(value, dict):
        value = {name: one for name, one in value.items() if one is not None or name in kind.__struct_fields__}
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        _note(error, path, found)
        return None


def shaped_by_type(
    kinds: Mapping[str, type[msgspec.Struct]], value: Any, path: str, found: Findings, default: str = ""
) -> msgspec.Struct | None:
    """Returns the value in the shape of its `type`, which may be left out where there is a default."""
    name = value.get("type") or default
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        if name:
            known = ", ".join(kinds)
            found.refuse(f"{path}.type", f"{str(name)[:MAX_SHOWN]!r} is not supported: must be one of {known}")
        else:
            found.add(f"{path}.type", "is required")
        return None
    return shaped(kind, {**value, "type": name}, path, found)


def decoded(decoder: "msgspec.json.Decoder[Any]", raw: msgspec.Raw, path: str, found: Findings) -> Any:
    """Returns what a decoder makes of JSON; None, with what is wrong noted, where it does not take it."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        _note(error, path, found)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found.add(path, "is not JSON that can be read")
    return None


def _note(error: msgspec.ValidationError, path: str, found: Findings) -> None:
    [violation] = wrong_shape(str(error)).violations
    inner = violation.field
    separator = "" if not inner or inner.startswith("[") else "."
    note = found.refuse if violation.description == _UNKNOWN else found.add
    note(f"{path}{separator}{inner}", violation.description)
