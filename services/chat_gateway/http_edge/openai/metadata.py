"""The bounds of OpenAI's `metadata`, which are narrower than those of a session's."""

from collections.abc import Mapping
from typing import Final

from contract.fields import check_metadata
from servicekit.errors import Violations

MAX_PAIRS: Final = 16


def check_openai_metadata(found: Violations, metadata: Mapping[str, str] | None) -> None:
    """Adds violations for more than `MAX_PAIRS` pairs, and for keys and values that are too long."""
    given = metadata or {}
    check_metadata(found, "metadata", {} if len(given) > MAX_PAIRS else given, name_pairs=False)
    if len(given) > MAX_PAIRS:
        found.add("metadata", f"must have at most {MAX_PAIRS} pairs")
