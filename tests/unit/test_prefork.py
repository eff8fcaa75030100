import os
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.servers.prefork import Forked, PreforkedChild, PreforkServer
from tests.servers.processes import clean_environment, wait_until_ended

pytestmark = pytest.mark.slow

PATIENCE = 60.0
SETTINGS = clean_environment({"PARLEY_SESSION_REDIS_URL": "redis://127.0.0.1:1"})
"""No Redis is there."""


def child(tmp_path: Path, port: str) -> PreforkedChild:
    """Return session_svc as a child, not started."""
    env = SETTINGS | {"PARLEY_SESSION_GRPC_PORT": port}
    return PreforkedChild("session_svc", "session_svc", log=tmp_path / "log", env=env, directory=tmp_path)


def wait_for(text: str, log: Path) -> None:
    """Wait until a log holds a text."""
    deadline = time.monotonic() + PATIENCE
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_the_exit_code_and_the_output_are_those_of_the_module(tmp_path: Path) -> None:
    refused = child(tmp_path, "none")
    refused.start()
    assert refused.wait(PATIENCE) != 0
    assert "GRPC_PORT" in refused.log.read_text()


def test_it_is_started_again_and_ended_by_signals(tmp_path: Path) -> None:
    service = child(tmp_path, "0")
    service.start()
    first = service.pid
    wait_for("redis_unreachable", service.log)
    assert Path(f"/proc/{first}/cwd").resolve() == tmp_path
    assert service.kill() == -signal.SIGKILL
    service.start()
    assert service.pid != first
    service.pause()
    service.resume()
    assert service.kill() == -signal.SIGKILL


def fork(server: PreforkServer, tmp_path: Path) -> Forked:
    """Fork session_svc, and wait until it runs."""
    log = tmp_path / "log"
    log.touch()
    streams = (Path("/dev/null"), log, log)
    forked = server.fork(SETTINGS | {"PARLEY_SESSION_GRPC_PORT": "0"}, tmp_path, streams)
    wait_for("redis_unreachable", log)
    return forked


def test_forks_end_with_their_server(tmp_path: Path) -> None:
    with closing(PreforkServer("session_svc", tmp_path / "socket", os.getpid())) as server:
        forked = fork(server, tmp_path)
    assert forked.wait(PATIENCE) == -signal.SIGKILL
    wait_until_ended([forked.pid])


def test_servers_end_with_their_owner(tmp_path: Path) -> None:
    owner = subprocess.Popen(["sleep", "600"])
    server = PreforkServer("session_svc", tmp_path / "socket", owner.pid)
    forked = fork(server, tmp_path)
    owner.kill()
    owner.wait()
    assert forked.wait(PATIENCE) == -signal.SIGKILL
    wait_until_ended([forked.pid])


def test_forks_end_with_who_asked_for_them(tmp_path: Path) -> None:
    with closing(PreforkServer("session_svc", tmp_path / "socket", os.getpid())) as server:
        forked = fork(server, tmp_path)
        forked.close()
        wait_until_ended([forked.pid])
