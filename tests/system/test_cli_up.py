"""`parley up` as a user has it: the real command, embedded servers, real services, and once the real model."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from parley_cli.processes.ports import is_free
from tests.servers.mock_model import MockModel
from tests.servers.ports import free_port
from tests.servers.processes import clean_environment, wait_until_ended

START_SECONDS = 120
STOP_SECONDS = 60
PARLEY = str(Path(sys.executable).with_name("parley"))


def free_run(length: int) -> int:
    """Return a port from which on `length` ports are free: gateways take consecutive ones."""
    for _ in range(100):
        first = free_port()
        if first + length < 65536 and all(is_free(first + n) for n in range(length)):
            return first
    raise AssertionError("no free ports")


class Parley:
    """The command with ports of its own, in a folder of its own."""

    def __init__(self, folder: Path, extra: dict[str, str]) -> None:
        self.folder = folder
        self.http_port = free_run(2)
        self.url = f"http://127.0.0.1:{self.http_port}"
        ports = {
            "PARLEY_GATEWAY_HTTP_PORT": self.http_port,
            "PARLEY_GATEWAY_GRPC_PORT": free_port(),
            "PARLEY_CONFIG_GRPC_PORT": free_port(),
            "PARLEY_SESSION_GRPC_PORT": free_port(),
        }
        settings = {name: str(port) for name, port in ports.items()}
        # The folder has no home, and its user's proxy must not come between the parts.
        settings |= {"PARLEY_URL": self.url, "HOME": str(folder), "http_proxy": "http://127.0.0.1:1"}
        self.env = clean_environment(settings | extra)

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [PARLEY, *arguments],
            cwd=self.folder,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    def succeed(self, *arguments: str, **env: str) -> str:
        """Run a command that must succeed, and return its output."""
        done = self.run(*arguments, **env)
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def refusal(self, *arguments: str, **env: str) -> str:
        """Run a command that must fail with one line and exit code 1, and return that line."""
        done = self.run(*arguments, **env)
        assert done.returncode == 1, done.stdout + done.stderr
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("parley: ")
        return lines[0]

    def pids(self) -> dict[str, int]:
        """Process ids of the running system, the supervisor's too."""
        state = json.loads(self.succeed("status", "--json"))
        return {"supervisor": state["pid"]} | {part["name"]: part["pid"] for part in state["parts"]}

    def logs(self) -> str:
        """The end of every log."""
        return "".join(f"\n== {file.name}\n{file.read_text()[-800:]}" for file in self.folder.glob(".parley/log/*.log"))


@pytest.fixture
def model() -> Iterator[MockModel]:
    with MockModel() as model:
        yield model


@pytest.fixture
def parley(tmp_path: Path, model: MockModel) -> Iterator[Parley]:
    parley = Parley(tmp_path, {"PARLEY_PROVIDERS": json.dumps({"mock": {"base_url": model.url}})})
    yield parley
    parley.run("down")


class Foreground:
    """`parley up` in the foreground; its output is read all along."""

    def __init__(self, parley: Parley, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [PARLEY, "up", *arguments],
            cwd=parley.folder,
            env=parley.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._logs = parley.logs
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip("\n") for line in self.process.stdout)

    def wait_for(self, start: str) -> None:
        """Wait for a line that starts so."""
        deadline = time.monotonic() + START_SECONDS
        while not any(line.startswith(start) for line in list(self.lines)):
            assert self.process.poll() is None, "\n".join(self.lines) + self._logs()
            assert time.monotonic() < deadline, "\n".join(self.lines) + self._logs()
            time.sleep(0.05)

    def end(self) -> tuple[int, list[str]]:
        """Wait for its end; returns the exit code and the output."""
        code = self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code, self.lines


def descendants(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def answer_in(lines: list[str]) -> str:
    return next(line for line in lines if line.startswith("hello  ")).removeprefix("hello  ")


def test_first_run_and_second_run_with_the_real_model(tmp_path: Path) -> None:
    parley = Parley(tmp_path, {})
    first = Foreground(parley)
    first.wait_for("running")
    children = descendants(first.process.pid)
    turn = {"model": "hello", "session_id": "kept", "messages": [{"role": "user", "content": "I am Ada."}]}
    httpx.post(f"{parley.url}/v1/chat/completions", json=turn, timeout=60, trust_env=False).raise_for_status()
    first.process.send_signal(signal.SIGINT)
    code, lines = first.end()
    assert code == 0, "\n".join(lines)
    assert answer_in(lines)
    assert lines[-1] == "stopped gateway-1, session_svc, config_svc, model, redis, postgres"
    assert len(children) >= 6
    wait_until_ended(children, timeout=0)

    curl = next(line for line in lines if line.startswith("curl "))
    grpcurl = next(line for line in lines if "grpcurl" in line)
    second = Foreground(parley)
    second.wait_for("running")
    kept = json.loads(parley.succeed("sessions", "show", "kept", "--json"))
    assert kept["messages"][0]["content"] == "I am Ada."
    for pasted in (curl, grpcurl):
        done = subprocess.run(["sh", "-c", pasted], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "content" in done.stdout
    second.process.send_signal(signal.SIGTERM)
    assert second.end()[0] == 0


def test_detached_system_is_used_and_stopped(parley: Parley, model: MockModel) -> None:
    out = parley.succeed("up", "--detach", "--gateways", "2")
    assert answer_in(out.splitlines()) == "echo:2:Say hello to me in one short sentence."
    assert [request["model"] for request in model.requests] == ["mock-model"]
    pids = parley.pids()
    assert list(pids) == ["supervisor", "postgres", "redis", "config_svc", "session_svc", "gateway-1", "gateway-2"]

    assert f"in use by another `parley up` (pid {pids['supervisor']})" in parley.refusal("up")

    assert "hello" in parley.succeed("agents", "list")
    agent = parley.folder / "agent.yaml"
    agent.write_text(
        "{id: bob, name: Bob, template_id: assistant, instructions: Be Bob, model: {provider: mock, name: m}}"
    )
    assert parley.succeed("agents", "create", "-f", "agent.yaml") == "created bob (revision 1)\n"
    assert "already" in parley.refusal("agents", "create", "-f", "agent.yaml")
    agent.write_text("name: Robert\n")
    assert parley.succeed("agents", "update", "bob", "-f", "agent.yaml") == "updated bob (revision 2)\n"
    assert json.loads(parley.succeed("agents", "get", "bob", "--json"))["name"] == "Robert"
    assert parley.succeed("chat", "bob", "--session", "s", "--message", "one") == "echo:2:one\n"
    other = f"http://127.0.0.1:{parley.http_port + 1}"
    assert parley.succeed("chat", "bob", "--session", "s", "--message", "two", PARLEY_URL=other) == "echo:4:two\n"
    assert "s " in parley.succeed("sessions", "list", "--agent", "bob")
    assert "echo:4:two" in parley.succeed("sessions", "show", "s")
    parley.succeed("sessions", "delete", "s")
    assert "session_not_found" in parley.refusal("sessions", "show", "s")
    assert "assistant" in parley.succeed("templates", "list")
    parley.succeed("agents", "delete", "bob")
    assert "agent_not_found" in parley.refusal("chat", "bob", "--message", "three")

    assert parley.succeed("down") == "stopped the system in .parley\n"
    wait_until_ended(pids.values(), timeout=5)
    assert parley.succeed("down") == "no system runs in .parley\n"
    assert "no system runs" in parley.refusal("status")


def test_no_child_outlives_a_supervisor_that_was_killed(parley: Parley) -> None:
    parley.succeed("up", "--detach")
    pids = parley.pids()
    children = descendants(pids["supervisor"])
    os.kill(pids["supervisor"], signal.SIGKILL)
    wait_until_ended(children)
    parley.succeed("up", "--detach")
    assert set(parley.pids().values()).isdisjoint(pids.values())


def test_a_dead_child_is_named_and_ends_everything(parley: Parley) -> None:
    up = Foreground(parley)
    up.wait_for("running")
    pids = parley.pids()
    os.kill(pids["redis"], signal.SIGKILL)
    code, lines = up.end()
    assert code == 1
    log = parley.folder / ".parley" / "log" / "redis.log"
    assert lines[-1].startswith(f"parley: redis was killed by signal 9 (log {log}): ")
    wait_until_ended(pids.values(), timeout=5)


def test_an_interrupted_start_leaves_nothing_behind(parley: Parley) -> None:
    up = Foreground(parley)
    up.wait_for("redis ready")
    children = descendants(up.process.pid)
    up.process.send_signal(signal.SIGINT)
    code, lines = up.end()
    assert code == 0, "\n".join(lines)
    assert lines[-1].startswith("stopped ")
    wait_until_ended(children, timeout=5)


def test_a_taken_port_is_named_before_anything_starts(parley: Parley) -> None:
    port = parley.env["PARLEY_SESSION_GRPC_PORT"]
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as other:
        deadline = time.monotonic() + 10
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
