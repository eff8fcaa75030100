"""Converts JSON Schemas to Gemini's subset. Other keywords are added to the description if possible, or rejected."""

from collections.abc import Mapping
from typing import Any, Final

from servicekit.errors import Violations

MAX_DEPTH: Final = 32

_TAKEN: Final = frozenset(
    {"$id", "$ref", "$anchor", "type", "format", "title", "description", "enum", "minItems", "maxItems", "minimum"}
    | {"maximum", "required", "propertyOrdering"}
)
_ONE: Final = frozenset({"items", "additionalProperties"})
_MANY: Final = frozenset({"anyOf", "oneOf", "prefixItems"})
_NAMED: Final = frozenset({"properties", "$defs", "definitions"})
_WITHOUT_MEANING: Final = frozenset({"$schema", "$comment", "examples", "readOnly", "writeOnly", "deprecated"})
_IN_WORDS: Final = frozenset(
    {"pattern", "minLength", "maxLength", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems"}
    | {"minProperties", "maxProperties", "default", "example", "contentEncoding", "contentMediaType"}
)


def translate(schema: Any, field: str, found: Violations, depth: int = 0) -> Any:
    """Returns the schema in Gemini's subset; adds to `found` every keyword that can't be said in it."""
    if not isinstance(schema, Mapping):
        return schema
    if depth > MAX_DEPTH:
        found.add(field, f"must be nested at most {MAX_DEPTH} deep for providers of kind gemini")
        return {}
    out: dict[str, Any] = {}
    words: list[str] = []
    for name, value in _with_all_of_one(schema).items():
        inner = _inner(name, value, field, found, depth + 1)
        if inner is not None:
            out["$defs" if name == "definitions" else name] = inner
        elif name in _TAKEN:
            out[name] = value
        elif name == "const":
            out["enum"] = [value]
        elif name in _IN_WORDS:
            words.append(f"{name}: {value}")
        elif name not in _WITHOUT_MEANING:
            found.add(field, f"the keyword {name[:64]!r} is not taken by providers of kind gemini")
    if isinstance(out.get("$ref"), str):
        out["$ref"] = out["$ref"].replace("#/definitions/", "#/$defs/")
    if words:
        said = out.get("description")
        out["description"] = f"{said} ({', '.join(words)})" if said else ", ".join(words)
    return out


def _inner(name: str, value: Any, field: str, found: Violations, depth: int) -> Any:
    """Returns what a keyword that holds schemas holds, translated; None for any other keyword."""
    if name in _ONE:
        return translate(value, field, found, depth)
    if name in _MANY and isinstance(value, list):
        return [translate(one, field, found, depth) for one in value]
    if name in _NAMED and isinstance(value, Mapping):
        return {key: translate(one, field, found, depth) for key, one in value.items()}
    return None


def _with_all_of_one(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    alone = schema.get("allOf")
    if not (isinstance(alone, list) and len(alone) == 1 and isinstance(alone[0], Mapping)):
        return schema
    return {**alone[0], **{name: value for name, value in schema.items() if name != "allOf"}}
