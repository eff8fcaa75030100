"""Checks the shape of JSON Schemas (2020-12) of tool arguments. The library's check against the meta schema takes 0.3
ms per subschema, and users write these; this one takes microseconds. Patterns and references are not checked, since
only the model's provider interprets the schema.
"""

from collections.abc import Callable, Iterator
from typing import Any

from config_svc.model.rules import Json
from servicekit.errors import Violation

MAX_VIOLATIONS = 100

_TYPES = frozenset({"null", "boolean", "object", "array", "number", "string", "integer"})


def argument_schema_violations(schema: dict[str, Json], path: str) -> list[Violation]:
    """Returns violations of the JSON Schema of a tool's arguments; at most MAX_VIOLATIONS."""
    if schema.get("type", "object") != "object":
        return [Violation(f"{path}.type", "must be object: a tool's arguments are one")]
    found = []
    for violation in _violations(schema, path):
        found.append(violation)
        if len(found) == MAX_VIOLATIONS:
            break
    return found


def _violations(schema: Any, path: str) -> Iterator[Violation]:
    waiting: list[tuple[Any, str]] = [(schema, path)]
    while waiting:
        one, where = waiting.pop()
        if isinstance(one, bool):
            continue
        if not isinstance(one, dict):
            yield Violation(where[:400], "must be a JSON Schema: an object or a boolean")
            continue
        for keyword, value in one.items():
            if (shape := _SHAPES.get(keyword)) is not None:
                is_right, rule = shape
                if not is_right(value):
                    yield Violation(f"{where}.{keyword}"[:400], rule)
                    continue
            waiting += _subschemas(keyword, value, f"{where}.{keyword}")


def _subschemas(keyword: str, value: Any, path: str) -> Iterator[tuple[Any, str]]:
    if keyword in _SCHEMAS:
        yield value, path
    elif keyword in _MAPS:
        yield from ((one, f"{path}.{name}") for name, one in value.items())
    elif keyword in _LISTS:
        yield from ((one, f"{path}[{index}]") for index, one in enumerate(value))


def _is_type(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, str) and one in _TYPES for one in value)
    return isinstance(value, str) and value in _TYPES


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_SCHEMAS = frozenset(
    {
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_MAPS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})

_Shape = tuple[Callable[[Any], bool], str]

_SHAPES: dict[str, _Shape] = {
    "type": (_is_type, f"must be one of {', '.join(sorted(_TYPES))}, or a list of them"),
    "required": (_is_names, "must be a list of names"),
    "enum": (lambda value: isinstance(value, list), "must be a list"),
    **dict.fromkeys(_MAPS, (lambda value: isinstance(value, dict), "must be an object of JSON Schemas")),
    **dict.fromkeys(_LISTS, (lambda value: isinstance(value, list) and bool(value), "must be a list of JSON Schemas")),
    **dict.fromkeys(
        ("$ref", "$id", "$schema", "$anchor", "$comment", "description", "format", "pattern", "title"),
        (lambda value: isinstance(value, str), "must be a string"),
    ),
    **dict.fromkeys(
        ("maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum", "multipleOf"), (_is_number, "must be a number")
    ),
    **dict.fromkeys(
        (
            "maxContains",
            "maxItems",
            "maxLength",
            "maxProperties",
            "minContains",
            "minItems",
            "minLength",
            "minProperties",
        ),
        (_is_count, "must be a whole number, at least 0"),
    ),
    "uniqueItems": (lambda value: isinstance(value, bool), "must be true or false"),
}
