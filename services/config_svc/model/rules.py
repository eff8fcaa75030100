"""Shared field rules. Each adds its violations, so that callers get all of them at once."""

import json
import math
import re
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeAlias

from contract import placeholders
from contract.fields import check_resource_id, check_user_id
from servicekit.errors import Violations

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_COMMENT_CHARACTERS = 1000
MAX_LABELS = 64
KIB = 1024
JSON_OVERHEAD = 6
"""How many times larger than its JSON a `google.protobuf.Struct` can be: `1,` takes 11 bytes."""

_LABEL_KEY = re.compile(r"[a-z]([a-z0-9_./-]{0,61}[a-z0-9])?")
_PLACEHOLDER_NAME = re.compile(placeholders.NAME)


def is_label_key(text: str) -> bool:
    """Returns whether `text` can be the key of a label."""
    return _LABEL_KEY.fullmatch(text) is not None


def check_text(found: Violations, field: str, value: str, *, maximum: int, required: bool = False) -> None:
    """Reports a text that is longer than `maximum` characters, holds NUL (PostgreSQL stores none), or is missing."""
    if required and not value:
        found.add(field, "is required")
    if len(value) > maximum:
        found.add(field, f"must have at most {maximum} characters")
    _check_nul(found, field, value)


def check_user_of(project: str, user_id: str) -> None:
    """Raises `InvalidArgument` unless both could be there: for what is done to all that one user has in a project."""
    found = Violations()
    check_resource_id(found, "project", project)
    check_user_id(found, "user_id", user_id, required=True)
    found.check()


def check_bytes(found: Violations, field: str, value: str, *, maximum: int) -> None:
    """Reports a text that is longer than `maximum` bytes of UTF-8, or holds NUL."""
    if len(value.encode()) > maximum:
        found.add(field, f"must have at most {maximum} bytes")
    _check_nul(found, field, value)


def check_number(
    found: Violations,
    field: str,
    value: float | None,
    *,
    minimum: float,
    maximum: float = math.inf,
    exclusive: bool = False,
) -> None:
    """Reports a number outside `minimum` to `maximum`, or (`exclusive`) not greater than `minimum`; never None."""
    if value is None or (minimum <= value <= maximum and not (exclusive and value == minimum)):
        return
    lower = f"greater than {minimum}" if exclusive else f"at least {minimum}"
    found.add(field, f"must be {lower}" if math.isinf(maximum) else f"must be {lower} and at most {maximum}")


def check_duration(
    found: Violations, field: str, value: timedelta | None, *, minimum: timedelta, maximum: timedelta
) -> None:
    """Reports a duration outside `minimum` to `maximum`."""
    if value is not None and not minimum <= value <= maximum:
        found.add(field, f"must be from {minimum.total_seconds():.0f}s to {maximum.total_seconds():.0f}s")


def check_uuid(found: Violations, field: str, value: str) -> None:
    """Reports a text that is not a UUID in its usual form."""
    if not is_uuid(value):
        found.add(field, "must be a UUID")


def is_uuid(text: str) -> bool:
    """Returns whether `text` is a UUID in its usual form, 36 characters."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def check_labels(found: Violations, field: str, labels: dict[str, str]) -> None:
    """Reports too many labels, keys that are none, and values that are too long."""
    if len(labels) > MAX_LABELS:
        found.add(field, f"must have at most {MAX_LABELS} entries")
    for key, value in sorted(labels.items()):
        if not is_label_key(key):
            found.add(
                field,
                f"key {key[:80]!r} must be lower-case letters, digits and '_', '.', '/', '-', begin with a letter, end "
                "with a letter or digit, at most 63 characters",
            )
        check_text(found, f"{field}.{key[:80]}", value, maximum=256)


def check_placeholder_names(found: Violations, field: str, names: Sequence[str]) -> None:
    """Reports more than 64 names, a duplicate, and a name that no placeholder can have."""
    if len(names) > 64:
        found.add(field, "must have at most 64 entries")
    for index, name in enumerate(names[:64]):
        if not _PLACEHOLDER_NAME.fullmatch(name):
            found.add(
                f"{field}[{index}]",
                "must be letters, digits and '_', '.', '-', begin with a letter or '_', at most 64 characters",
            )
        elif name in names[:index]:
            found.add(f"{field}[{index}]", "is a duplicate")


def check_json(found: Violations, field: str, value: dict[str, Json], *, maximum: int) -> None:
    """Reports a JSON object that is larger than `maximum` bytes, or holds what JSON or PostgreSQL can't (NaN, NUL)."""
    text = canonical(value)
    if len(text.encode()) > maximum:
        found.add(field, f"must have at most {maximum} bytes as JSON")
    if not _is_finite(value):
        found.add(field, "must not hold a number that is not finite")
    if "\\u0000" in text and _has_nul(value):
        found.add(field, "must not hold the character NUL")


def canonical(value: Json) -> str:
    """Returns JSON text that is equal exactly for equal values: True is not 1, and key order does not count."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _check_nul(found: Violations, field: str, value: str) -> None:
    if "\0" in value:
        found.add(field, "must not hold the character NUL")


def _is_finite(value: Json) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_is_finite(item) for item in value.values())
    return all(_is_finite(item) for item in value) if isinstance(value, list) else True


def _has_nul(value: Json) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(item) for key, item in value.items())
    return any(_has_nul(item) for item in value) if isinstance(value, list) else False
