"""session_svc that deletes nothing and lets nothing expire: what the history checker must notice.

Run as a module, as session_svc itself is. Nothing in services/ knows of it.
"""

import runpy
from pathlib import Path
from typing import Any

PATCHES = {
    "prelude.lua": [
        ("if not held and (v.new or expire <= now) then return nil end", "if not held and v.new then return nil end"),
        ("local at = expire\n", "local at = expire + 3600000\n"),
    ],
    "delete.lua": [("remove()\nhand_over", "hand_over")],
}

_read_text = Path.read_text


def read_text_of_the_immortal(path: Path, *arguments: Any, **options: Any) -> str:
    """Read a file; of some scripts, a version that keeps what it should not."""
    text = _read_text(path, *arguments, **options)
    for sound, unsound in PATCHES.get(path.name, []):
        assert text.count(sound) == 1, "the scripts have changed: this patch must follow them"
        text = text.replace(sound, unsound)
    return text


if __name__ == "__main__":
    Path.read_text = read_text_of_the_immortal  # type: ignore[method-assign]
    runpy.run_module("session_svc", run_name="__main__")
