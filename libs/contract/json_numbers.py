"""Keeps integers in free-form JSON exact, although `google.protobuf.Struct` has only doubles."""

import json
from decimal import Decimal
from typing import Any

EXACT = 2**53
"""Doubles represent all integers up to here exactly."""

_WORD = 2**64
"""Integers below it become int, however they were written; above it, a number written as a double stays one."""


def normalized(value: Any) -> Any:
    """Returns JSON in which equal numbers are of one type: 14.0 is 14, and 10**300 is 1e300, which is what it says."""
    if isinstance(value, dict):
        return {name: normalized(one) for name, one in value.items()}
    if isinstance(value, list):
        return [normalized(one) for one in value]
    return value if isinstance(value, bool) or not isinstance(value, int | float) else normalized_number(value)


def normalized_number(number: float) -> int | float:
    """Returns one number in normalized form."""
    if isinstance(number, float):
        return int(number) if number.is_integer() and abs(number) < _WORD else number
    if abs(number) < _WORD:
        return number
    try:
        double = float(number)
    except OverflowError:
        return number
    return double if Decimal(repr(double)) == number else number


def text_unless_exact(value: Any) -> str:
    """Returns normalized JSON as text if doubles can't represent all of its numbers exactly, otherwise ""."""
    return "" if _fits(value) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def parsed(text: str) -> Any:
    """Returns the normalized value of a JSON text. Raises `ValueError` for invalid JSON, including NaN."""
    try:
        return normalized(json.loads(text, parse_constant=_refuse))
    except RecursionError:
        raise ValueError("nests too deeply") from None


def _fits(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) <= EXACT or (abs(value) < _WORD and int(float(value)) == value)
    if isinstance(value, dict):
        return all(map(_fits, value.values()))
    return all(map(_fits, value)) if isinstance(value, list) else True


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
