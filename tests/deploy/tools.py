"""The command line tools that the checks of deploy/ use, from wheels of the dev extra."""

import sys
from pathlib import Path


def program(name: str) -> Path:
    """Return a tool that is installed beside the Python that runs the tests."""
    path = Path(sys.executable).with_name(name)
    assert path.exists(), f"{name} is part of the dev extra and not installed: make clean, then make test"
    return path
