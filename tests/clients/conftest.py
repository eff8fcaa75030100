"""The environment that `make test-clients` installs: packages that the tests run, and that Parley never imports."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = 300

Run = Callable[..., str]


@pytest.fixture(scope="session")
def python_programs() -> Path:
    """The folder of the programs of the pinned Python packages."""
    programs = HERE / ".venv" / "bin"
    if not (programs / "python").exists():
        pytest.skip("not run on this machine: the clients in Python are installed by `make test-clients`")
    return programs


@pytest.fixture(scope="session")
def node_programs() -> Path:
    """The folder of the programs of the pinned npm packages."""
    programs = HERE / "node_modules" / ".bin"
    if shutil.which("node") is None or not programs.exists():
        pytest.skip("not run on this machine: the clients in TypeScript need Node.js, and `make test-clients`")
    return programs


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a program to its end and return what it wrote; one that fails fails the test, with its words."""

    def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, "NO_PROXY": "127.0.0.1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    return run
