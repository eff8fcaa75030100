"""session_svc that takes every commit, whoever holds the lease: what the history checker must notice.

Run as a module, as session_svc itself is. Nothing in services/ knows of it.
"""

import runpy
from pathlib import Path
from typing import Any

FENCE = "return session ~= nil and session.held and session.token == token and session.turn == turn"
NO_FENCE = "return session ~= nil"

_read_text = Path.read_text


def read_text_without_fence(path: Path, *arguments: Any, **options: Any) -> str:
    """Read a file; of the scripts' prelude, a version in which whoever asks holds the lease."""
    text = _read_text(path, *arguments, **options)
    if path.name != "prelude.lua":
        return text
    assert text.count(FENCE) == 1, "the scripts have changed: this patch must follow them"
    return text.replace(FENCE, NO_FENCE)


if __name__ == "__main__":
    Path.read_text = read_text_without_fence  # type: ignore[method-assign]
    runpy.run_module("session_svc", run_name="__main__")
