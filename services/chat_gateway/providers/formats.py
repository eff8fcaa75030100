"""The `response_format` of chat completions, for kinds with other formats for it."""

from collections.abc import Mapping
from typing import Any, Final

_FIELDS: Final = frozenset({"type", "json_schema"})
_SCHEMA_FIELDS: Final = frozenset({"name", "description", "schema", "strict"})
_MAX_NAME: Final = 100


def asked_schema(asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the schema that is asked for, with its description in it; None where there is none."""
    described = asked.get("json_schema")
    schema = described.get("schema") if isinstance(described, Mapping) else None
    if not isinstance(schema, Mapping) or not isinstance(described, Mapping):
        return None
    said = described.get("description")
    return {**schema, "description": said} if isinstance(said, str) and said and "description" not in schema else schema


def unknown_fields(asked: Mapping[str, Any]) -> list[str]:
    """Returns the places, in the request, of what is not OpenAI's."""
    found = [f"response_format.{name[:_MAX_NAME]}" for name in asked if name not in _FIELDS]
    described = asked.get("json_schema")
    inner = described if isinstance(described, Mapping) else {}
    return found + [f"response_format.json_schema.{name[:_MAX_NAME]}" for name in inner if name not in _SCHEMA_FIELDS]
