"""Free-form JSON between `google.protobuf.Struct` and the domain, at a bounded cost: it is done on the event loop."""

import math
from collections.abc import Collection

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value

from config_svc.model.rules import JSON_OVERHEAD, KIB, Json, canonical
from contract.json_numbers import normalized, normalized_number, parsed
from servicekit.errors import InvalidArgument, Violation

MAX_DEPTH = 24
"""Objects and lists within each other. Deeper ones could be written but not read: a message nests up to 100 levels, of
which an object takes three, and lists and audit events wrap what is written in further ones."""

_MIN_VALUE_BYTES = 2  # `1,`


def object_of(message: Struct, field: str, *, maximum: int = 64 * KIB) -> dict[str, Json]:
    """Returns the JSON object that a message holds.

    Raises `InvalidArgument` for `field` where it holds what JSON can't, nests deeper than `MAX_DEPTH`, or is certain to
    have more than `maximum` bytes as JSON; what it costs to find out is bounded by `maximum`.
    """
    if message.ByteSize() > JSON_OVERHEAD * maximum:
        raise InvalidArgument([Violation(field, f"must have at most {maximum} bytes as JSON")])
    return _Conversion(field, maximum).object_of(message, 1)


def exact_object_of(message: Struct, text: str, field: str, text_field: str) -> dict[str, Json]:
    """Returns the JSON object that `text` says, or, where there is none, `message`; both may be given if they agree.

    Raises `InvalidArgument` as `object_of`, and for `text_field` where the text is no such object.
    """
    given = object_of(message, field)
    if not text:
        return given
    exact = json_object_of(text, text_field)
    if given and canonical(given) != canonical(normalized(_as_doubles(exact))):
        raise InvalidArgument([Violation(text_field, f"must say the same as {field}, or one of the two be left out")])
    return exact


def json_object_of(text: str, field: str, *, maximum: int = 64 * KIB) -> dict[str, Json]:
    """Returns the object that a JSON text says. Raises `InvalidArgument` for what `object_of` would not return."""
    value = json_value_of(text, field, maximum=maximum)
    if not isinstance(value, dict):
        raise InvalidArgument([Violation(field, "must be a JSON object")])
    return value


def json_value_of(text: str, field: str, *, maximum: int = 64 * KIB) -> Json:
    """Returns what a JSON text says. Raises `InvalidArgument` where it is none, too long, or nests too deeply."""
    if len(text.encode()) > maximum:
        raise InvalidArgument([Violation(field, f"must have at most {maximum} bytes")])
    try:
        value: Json = parsed(text)
        _as_doubles(value)
    except ValueError:
        raise InvalidArgument([Violation(field, "must be JSON")]) from None
    except OverflowError:
        raise InvalidArgument([Violation(field, "must not hold a number that a double can't")]) from None
    if _depth(value) > MAX_DEPTH:
        raise InvalidArgument([Violation(field, f"must not nest deeper than {MAX_DEPTH} levels")])
    return value


def _as_doubles(value: Json) -> Json:
    """Returns JSON as a Struct holds it. Raises `OverflowError` for a number that it can't hold."""
    if isinstance(value, bool) or not isinstance(value, int | float | dict | list):
        return value
    if isinstance(value, dict):
        return {name: _as_doubles(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_as_doubles(one) for one in value]
    number = float(value)
    if not math.isfinite(number):
        raise OverflowError
    return number


def _depth(value: Json) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def struct(value: dict[str, Json]) -> Struct:
    """Returns the message of a JSON object."""
    return ParseDict(value, Struct())


class _Conversion:
    def __init__(self, field: str, maximum: int) -> None:
        self._field = field
        self._maximum = maximum
        self._left = maximum // _MIN_VALUE_BYTES

    def object_of(self, message: Struct, depth: int) -> dict[str, Json]:
        self._enter(message.fields, depth)
        return {name: self._json_of(value, depth) for name, value in message.fields.items()}

    def _json_of(self, value: Value, depth: int) -> Json:
        match value.WhichOneof("kind"):
            case "struct_value":
                return self.object_of(value.struct_value, depth + 1)
            case "list_value":
                self._enter(value.list_value.values, depth + 1)
                return [self._json_of(item, depth + 1) for item in value.list_value.values]
            case "number_value":
                return self._number_of(value.number_value)
            case "string_value":
                return value.string_value
            case "bool_value":
                return value.bool_value
            case "null_value":
                return None
            case _:
                raise self._refusal("must not hold a value of no kind")

    def _enter(self, values: Collection[object], depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._refusal(f"must not nest deeper than {MAX_DEPTH} levels")
        self._left -= len(values)
        if self._left < 0:
            raise self._refusal(f"must have at most {self._maximum} bytes as JSON")

    def _number_of(self, number: float) -> int | float:
        if not math.isfinite(number):
            raise self._refusal("must not hold a number that is not finite")
        return normalized_number(number)

    def _refusal(self, description: str) -> InvalidArgument:
        return InvalidArgument([Violation(self._field, description)])
