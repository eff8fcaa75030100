"""The ids of tasks: that of the turn and that of its session, so that no index is needed.

`TURN.SESSION`. A colon of the session's id is written as `~`, which no such id has: in a path it would begin a verb.
"""

import re
from typing import Final

_ID: Final = re.compile(r"(?P<turn>[A-Za-z0-9_-]{1,64})\.(?P<session>[A-Za-z0-9._~-]{1,128})")


def task_id(turn_id: str, session_id: str) -> str:
    """Returns the id of the task that a turn is."""
    return f"{turn_id}.{session_id.replace(':', '~')}"


def parse_task_id(text: str) -> tuple[str, str] | None:
    """Returns the ids of turn and session; None if it is not the id of a task."""
    found = _ID.fullmatch(text)
    return (found["turn"], found["session"].replace("~", ":")) if found else None
