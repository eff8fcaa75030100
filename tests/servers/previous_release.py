"""The sources of the previous release, from the history of this checkout."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.servers.processes import CODE, clean_environment, code_of

PREVIOUS_RELEASE = "c171f7c"
REPOSITORY = Path(__file__).parents[2]


def sources_of_the_previous_release(folder: Path) -> Path:
    """Unpack the previous release's code into `folder`; the test is skipped, and says so, where there is no history."""
    archived = subprocess.run(
        ["git", "-C", str(REPOSITORY), "archive", PREVIOUS_RELEASE, *CODE],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if archived.returncode:
        pytest.skip(f"the previous release was not run: this checkout has no git history with {PREVIOUS_RELEASE}")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as sources:
        sources.extractall(folder, filter="data")
    asked = [sys.executable, "-c", "import session_svc; print(session_svc.__file__)"]
    environment = clean_environment(code_of(folder))
    found = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True, env=environment, cwd=folder)
    assert Path(found.stdout).is_relative_to(folder), "the previous release would not be what runs"
    return folder
