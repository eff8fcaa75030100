"""The ids of chat completions: that of the turn and, where it is stored, that of its session: no index is needed.

`chatcmpl-TURN.SESSION`. A colon of the session's id is written as `~`, which no such id has: in a path it would begin a
custom verb.
"""

import re
from typing import Final

_PREFIX: Final = "chatcmpl-"
_ID: Final = re.compile(r"chatcmpl-(?P<turn>[A-Za-z0-9_-]{1,64})(?:\.(?P<session>[A-Za-z0-9._~-]{1,128}))?")


def completion_id(turn_id: str, session_id: str) -> str:
    """Returns the id of the completion that a turn answered; `session_id` is empty for a stateless one."""
    return f"{_PREFIX}{turn_id}.{session_id.replace(':', '~')}" if session_id else f"{_PREFIX}{turn_id}"


def parse_completion_id(text: str) -> tuple[str, str] | None:
    """Returns the ids of turn and session; None if it is not the id of a completion.

    The session is empty where the turn was stateless, or an earlier release gave the id.
    """
    found = _ID.fullmatch(text)
    return (found["turn"], (found["session"] or "").replace("~", ":")) if found else None
