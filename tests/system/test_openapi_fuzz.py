"""schemathesis makes requests of every kind out of the OpenAPI document: none may be answered with 5xx."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.servers.system import System

EXAMPLES = int(os.environ.get("PARLEY_OPENAPI_EXAMPLES", "5"))
SEED = int(os.environ.get("PARLEY_OPENAPI_SEED", "20261122"))
SECONDS = 1500
MIN_REQUESTS = 1000


def test_no_request_that_the_document_allows_or_forbids_is_our_fault(parley_system: System, tmp_path: Path) -> None:
    parley_system.create_agent("fuzzed")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{parley_system.http_url}/docs/openapi.json",
            "--checks=not_a_server_error",
            "--phases=examples,coverage,fuzzing",
            f"--max-examples={EXAMPLES}",
            f"--seed={SEED}",
            "--no-shrink",
            "--continue-on-failure",
            "--generation-database=none",
            "--request-timeout=60",
            "--warnings=off",
            "--no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    [(made, passed)] = re.findall(r"(\d+) generated, (\d+) passed", done.stdout)
    assert made == passed
    assert int(made) >= MIN_REQUESTS
