"""Optional fields of JSON and of protobuf."""

from typing import Any

import msgspec
from msgspec import UNSET

from chat_gateway.http_edge.wire.times import seconds_of, to_duration


def given_fields(part: msgspec.Struct) -> dict[str, Any]:
    """Returns the fields that the caller gave, and not as null."""
    values = {field: getattr(part, field) for field in part.__struct_fields__}
    return {field: value for field, value in values.items() if value is not None and value is not UNSET}


def set_fields(message: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    """Returns those of `fields` that the message has."""
    return {field: getattr(message, field) for field in fields if message.HasField(field)}


def durations(message: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    """Returns those of `fields` that the message has, as JSON's durations."""
    return {field: seconds_of(getattr(message, field)) for field in fields if message.HasField(field)}


def set_durations(message: Any, part: msgspec.Struct, name: str, fields: tuple[str, ...]) -> None:
    """Sets the durations that the caller gave. Raises `InvalidArgument` that names `name.field`."""
    for field in fields:
        text = getattr(part, field)
        if isinstance(text, str):
            getattr(message, field).CopyFrom(to_duration(text, f"{name}.{field}"))
