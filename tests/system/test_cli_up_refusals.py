"""What `parley up` refuses, in one line, before anything starts."""

import subprocess
import sys
import time

import pytest

from parley_cli.processes.ports import is_free
from tests.servers.parley_up import Parley


def test_a_taken_port_is_named_before_anything_starts(parley: Parley) -> None:
    port = parley.env["PARLEY_SESSION_GRPC_PORT"]
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as other:
        deadline = time.monotonic() + 60
        while is_free(int(port)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for mode in ([], ["--detach"]):
            line = parley.refusal("up", *mode)
            assert line == f"parley: session_svc: port {port} is taken; free it or set PARLEY_SESSION_GRPC_PORT"
        other.kill()
    assert not (parley.folder / ".parley" / "log" / "postgres.log").exists()


def test_a_service_that_would_listen_for_everybody_says_why_it_does_not(parley: Parley) -> None:
    line = parley.refusal("up", PARLEY_CONFIG_HOST="0.0.0.0")
    assert line.startswith("parley: migrate ended") or line.startswith("parley: config_svc ended with exit code 1")
    assert "authentication is off" in line


def test_an_env_file_is_read_and_goes_after_the_environment(parley: Parley) -> None:
    (parley.folder / ".env").write_text("PARLEY_UP_REDIS_PORT=none\nPARLEY_GATEWAY_HTTP_PORT=none\n")
    assert parley.refusal("up").startswith("parley: PARLEY_UP_REDIS_PORT: Input should be a valid integer")
    (parley.folder / "services.env").write_text("PARLEY_CONFIG_LOG_LEVEL=loud\n")
    line = parley.refusal("up", "--env-file", "services.env")  # it is for the services, too
    assert "PARLEY_CONFIG_LOG_LEVEL: Input should be 'debug'" in line
    assert parley.refusal("up", "--env-file", "none.env") == "parley: cannot read none.env: No such file or directory"


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({"PARLEY_GATEWAY_HTTP_PORT": "99999"}, "PARLEY_GATEWAY_HTTP_PORT"),
        ({"PARLEY_PROVIDERS": "{"}, "PARLEY_PROVIDERS"),
        ({"PARLEY_PROVIDERS": "{}"}, "PARLEY_PROVIDERS names no provider"),
    ],
)
def test_a_wrong_setting_is_named(parley: Parley, env: dict[str, str], complaint: str) -> None:
    assert complaint.lower() in parley.refusal("up", **env).lower()
