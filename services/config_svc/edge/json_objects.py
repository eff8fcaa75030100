"""Free-form JSON between `google.protobuf.Struct` and the domain, at a bounded cost: it is done on the event loop."""

import math
from collections.abc import Collection

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value

from config_svc.model.rules import JSON_OVERHEAD, KIB, Json
from servicekit.errors import InvalidArgument, Violation

MAX_DEPTH = 24
"""Objects and lists within each other. Deeper ones could be written but not read: a message nests up to 100 levels, of
which an object takes three, and lists and audit events wrap what is written in further ones."""

EXACT = 2**53
"""A float holds every whole number up to here."""

_MIN_VALUE_BYTES = 2  # `1,`


def object_of(message: Struct, field: str, *, maximum: int = 64 * KIB) -> dict[str, Json]:
    """Returns the JSON object that a message holds.

    Raises `InvalidArgument` for `field` where it holds what JSON can't, nests deeper than `MAX_DEPTH`, or is certain to
    have more than `maximum` bytes as JSON; what it costs to find out is bounded by `maximum`.
    """
    if message.ByteSize() > JSON_OVERHEAD * maximum:
        raise InvalidArgument([Violation(field, f"must have at most {maximum} bytes as JSON")])
    return _Conversion(field, maximum).object_of(message, 1)


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
        """Returns whole numbers as int, as far as a float holds them exactly; stored ones come back the same way."""
        if not math.isfinite(number):
            raise self._refusal("must not hold a number that is not finite")
        return int(number) if number.is_integer() and abs(number) <= EXACT else number

    def _refusal(self, description: str) -> InvalidArgument:
        return InvalidArgument([Violation(self._field, description)])
