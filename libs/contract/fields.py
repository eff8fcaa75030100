"""The field rules that the services share. Each check notes what is wrong and goes on: a caller learns all at once."""

import re
from collections.abc import Mapping
from typing import Final

from servicekit.errors import Violations

DEFAULT_PROJECT: Final = "default"
"""The project of a request that names none."""

MAX_METADATA_PAIRS: Final = 64
MAX_METADATA_KEY: Final = 64
MAX_METADATA_VALUE: Final = 512
"""Of what a session keeps beside its turns: pairs, and characters of each key and value."""

RESOURCE_ID_PATTERN: Final = "[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
SESSION_ID_PATTERN: Final = "[A-Za-z0-9._:-]{1,128}"
USER_ID_PATTERN: Final = "[!-~]{1,256}"
"""What an id matches from end to end, as a regular expression of any dialect."""

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
    """Tells whether `text` can be the id of a project, an agent, a template or a provider."""
    return _RESOURCE_ID.fullmatch(text) is not None


def is_user_id(text: str) -> bool:
    """Tells whether `text` can be the id of a user."""
    return _USER_ID.fullmatch(text) is not None


def check_resource_id(found: Violations, field: str, value: str) -> None:
    """Notes a text that is empty or can't be the id of a project, an agent, a template or a provider."""
    if not value:
        found.add(field, "is required")
    elif not _RESOURCE_ID.fullmatch(value):
        found.add(field, RESOURCE_ID_RULE)


def check_session_id(found: Violations, field: str, value: str) -> None:
    """Notes a text that can't be the id of a session."""
    if not _SESSION_ID.fullmatch(value):
        found.add(field, "must be 1 to 128 of A-Z a-z 0-9 . _ : -")


def check_turn_id(found: Violations, field: str, value: str) -> None:
    """Notes a text that can't be the id of a turn."""
    if not _TURN_ID.fullmatch(value):
        found.add(field, "must be 1 to 64 of A-Z a-z 0-9 . _ : -")


def check_agent_uid(found: Violations, field: str, value: str) -> None:
    """Notes a text that can't be the uid of an agent."""
    if not _AGENT_UID.fullmatch(value):
        found.add(field, "must be the uid of an agent")


def check_user_id(found: Violations, field: str, value: str, *, required: bool = False) -> None:
    """Notes a text that can't be the id of a user. An empty one names none, which may be an error, too."""
    if not value:
        if required:
            found.add(field, "is required")
    elif not _USER_ID.fullmatch(value):
        found.add(field, "must be at most 256 printable ASCII characters without spaces")


def check_request_id(found: Violations, field: str, value: str) -> None:
    """Notes a text that can't be the id that a caller gives to its request."""
    if not _REQUEST_ID.fullmatch(value):
        found.add(field, "must be 1 to 255 printable ASCII characters")


def check_metadata(found: Violations, field: str, metadata: Mapping[str, str], *, name_pairs: bool = True) -> None:
    """Notes too many pairs of a session's metadata, and keys and values that are too long.

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
