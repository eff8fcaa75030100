"""The field rules that services share. Checks collect violations, so that callers get all of them at once."""

import re
from collections.abc import Mapping
from typing import Final

from servicekit.errors import Violations

DEFAULT_PROJECT: Final = "default"
"""The project of a request that names none."""

MAX_METADATA_PAIRS: Final = 64
MAX_METADATA_KEY: Final = 64
MAX_METADATA_VALUE: Final = 512
"""Limits of a session's metadata: pairs, and characters of each key and value."""

RESOURCE_ID_PATTERN: Final = "[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
SESSION_ID_PATTERN: Final = "[A-Za-z0-9._:-]{1,128}"
USER_ID_PATTERN: Final = "[!-~]{1,256}"
"""Patterns that ids must match completely; valid in any regular expression dialect."""

_RESOURCE_ID = re.compile(RESOURCE_ID_PATTERN)
_SESSION_ID = re.compile(SESSION_ID_PATTERN)
_TURN_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_AGENT_UID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_USER_ID = re.compile(USER_ID_PATTERN)
_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,255}")

RESOURCE_ID_RULE: Final = (
    "must be lower-case letters, digits and '-', begin with a letter, not end with '-', at most 63 characters"
)


def is_resource_id(text: str) -> bool:
    """Returns whether `text` is a valid id of a project, agent, template or provider."""
    return _RESOURCE_ID.fullmatch(text) is not None


def is_user_id(text: str) -> bool:
    """Returns whether `text` is a valid user id."""
    return _USER_ID.fullmatch(text) is not None


def check_resource_id(found: Violations, field: str, value: str) -> None:
    """Adds a violation unless `text` is a valid id of a project, agent, template or provider."""
    if not value:
        found.add(field, "is required")
    elif not _RESOURCE_ID.fullmatch(value):
        found.add(field, RESOURCE_ID_RULE)


def check_session_id(found: Violations, field: str, value: str) -> None:
    """Adds a violation unless `text` is a valid session id."""
    if not _SESSION_ID.fullmatch(value):
        found.add(field, "must be 1 to 128 of A-Z a-z 0-9 . _ : -")


def check_turn_id(found: Violations, field: str, value: str) -> None:
    """Adds a violation unless `text` is a valid turn id."""
    if not _TURN_ID.fullmatch(value):
        found.add(field, "must be 1 to 64 of A-Z a-z 0-9 . _ : -")


def check_agent_uid(found: Violations, field: str, value: str) -> None:
    """Adds a violation unless `text` is a valid agent uid."""
    if not _AGENT_UID.fullmatch(value):
        found.add(field, "must be the uid of an agent")


def check_user_id(found: Violations, field: str, value: str, *, required: bool = False) -> None:
    """Adds a violation unless `text` is a valid user id. An empty one names no user, which may be a violation, too."""
    if not value:
        if required:
            found.add(field, "is required")
    elif not _USER_ID.fullmatch(value):
        found.add(field, "must be at most 256 printable ASCII characters without spaces")


def check_request_id(found: Violations, field: str, value: str) -> None:
    """Adds a violation unless `text` is a valid request id."""
    if not _REQUEST_ID.fullmatch(value):
        found.add(field, "must be 1 to 255 printable ASCII characters")


def check_metadata(found: Violations, field: str, metadata: Mapping[str, str], *, name_pairs: bool = True) -> None:
    """Adds violations for too many pairs of session metadata, and for keys and values that are too long.

    With `name_pairs` the path of a value has its key, `field[key]`; without, it is `field` alone.
    """
    if len(metadata) > MAX_METADATA_PAIRS:
        found.add(field, f"must have at most {MAX_METADATA_PAIRS} pairs")
    for key, value in metadata.items():
        if not 1 <= len(key) <= MAX_METADATA_KEY:
            found.add(field, f"keys must have 1 to {MAX_METADATA_KEY} characters")
        if len(value) > MAX_METADATA_VALUE:
            path = f"{field}[{key[:MAX_METADATA_KEY]}]" if name_pairs else field
            found.add(path, f"values must have at most {MAX_METADATA_VALUE} characters")
