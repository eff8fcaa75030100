"""The command `parley` as a user has it, in a folder and on ports of its own."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from tests.servers import forked_command
from tests.servers.ports import free_port, free_ports
from tests.servers.processes import clean_environment

START_SECONDS = 300
STOP_SECONDS = 120
PARLEY = str(Path(sys.executable).with_name("parley"))


class Parley:
    """The command with ports of its own, in a folder of its own."""

    def __init__(self, folder: Path, extra: dict[str, str]) -> None:
        self.folder = folder
        self.http_port = free_ports(2)  # gateways take consecutive ones
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
        return forked_command.run(arguments, self.env | env, self.folder, START_SECONDS)

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
