"""Whole numbers in free-form JSON stay whole and exact, though a `google.protobuf.Struct` has doubles only."""

import json
from decimal import Decimal
from typing import Any

EXACT = 2**53
"""A double holds every whole number up to here."""

_WORD = 2**64
"""Whole numbers below it are int, however they were written. Above, one that is written as a double is one."""


def normalized(value: Any) -> Any:
    """Returns JSON in which equal numbers are of one type: 14.0 is 14, and 10**300 is 1e300, which is what it says."""
    if isinstance(value, dict):
        return {name: normalized(one) for name, one in value.items()}
    if isinstance(value, list):
        return [normalized(one) for one in value]
    return value if isinstance(value, bool) or not isinstance(value, int | float) else normalized_number(value)


def normalized_number(number: float) -> int | float:
    """Returns one number as `normalized` has it."""
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
    """Returns normalized JSON as text where doubles do not hold all of its numbers exactly; empty where they do."""
    return "" if _fits(value) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def parsed(text: str) -> Any:
    """Returns what a JSON text says, normalized. Raises `ValueError` for what is no JSON, NaN included."""
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
