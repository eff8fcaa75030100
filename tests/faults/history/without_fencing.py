"""session_svc that takes every commit, whoever holds the lease: what the history checker must notice.

Run as a module, as session_svc itself is. Nothing in services/ knows of it.
"""

import runpy
from pathlib import Path
from typing import Any

PATCHES = {
    "prelude.lua": (
        "return session ~= nil and session.held and session.token == token and session.turn == turn",
        "return session ~= nil",
    ),
    "commit.lua": (
        "if v[2] ~= turn_id or tonumber(v[1]) ~= token or tonumber(v[3]) <= now then",
        "if not load() then",
    ),
}

_read_text = Path.read_text


def read_text_without_fence(path: Path, *arguments: Any, **options: Any) -> str:
    """Read a file; of the scripts that ask for the lease, a version in which whoever asks holds it."""
    text = _read_text(path, *arguments, **options)
    if path.name not in PATCHES:
        return text
    fence, no_fence = PATCHES[path.name]
    assert text.count(fence) == 1, "the scripts have changed: this patch must follow them"
    return text.replace(fence, no_fence)


if __name__ == "__main__":
    Path.read_text = read_text_without_fence  # type: ignore[method-assign]
    runpy.run_module("session_svc", run_name="__main__")
