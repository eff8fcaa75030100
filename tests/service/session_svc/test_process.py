"""`python -m session_svc` as a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

from tests.servers.processes import ServiceProcess, clean_environment


def test_it_starts_says_so_and_leaves_cleanly(redis_url: str, tmp_path: Path) -> None:
    env = {"PARLEY_SESSION_REDIS_URL": redis_url, "PARLEY_SESSION_CONFIG_TARGET": "127.0.0.1:1"}
    with ServiceProcess("session_svc", env, logs=tmp_path) as service:
        assert service.serves()
        service.stop()
    [ready] = [json.loads(line) for line in service.log.read_text().splitlines() if '"ready"' in line]
    assert ready["service"] == "session_svc"
    assert ready["grpc_port"] == int(service.grpc_target.rpartition(":")[2])


def test_a_wrong_setting_is_one_clear_line() -> None:
    for env, expected in (
        ({"PARLEY_SESSION_REDIS_URL": "http://:secret@x"}, "Redis URL"),
        ({"PARLEY_SESSION_LEASE": "0"}, "PARLEY_SESSION_LEASE"),
        ({"PARLEY_SESSION_HOST": "0.0.0.0"}, "authentication is off"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "session_svc"],
            env=clean_environment(env),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert expected in line
        assert "secret" not in line
