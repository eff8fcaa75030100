"""Starts services by a fork of a process that has imported them: importing them takes most of the time of a start."""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from parley_cli.processes.child import Child

SERVER = Path(__file__).with_name("prefork_server.py")
ANSWER_SECONDS = 60.0
REPOSITORY = Path(__file__).parents[2]


class PreforkServer:
    """A process that has imported `module` and forks it on request; it ends with this one, and its forks with it."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._folder = tempfile.TemporaryDirectory(prefix="parley-")
        self._address = f"{self._folder.name}/socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen()
            descriptor = listener.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(SERVER), module, str(descriptor)],
                stdin=subprocess.PIPE,
                pass_fds=[descriptor],
                start_new_session=True,
            )

    def close(self) -> None:
        """End it, and its forks."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(ANSWER_SECONDS)
        self._folder.cleanup()

    def fork(self, env: Mapping[str, str], directory: Path, log: Path, entry: str | None = None) -> "Forked":
        """Start the service; `entry` is a module of the tests that runs it."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(self._address)
        order = {
            "module": entry or self._module,
            "path": [str(REPOSITORY)] if entry else [],
            "env": dict(env),
            "directory": str(directory),
            "log": str(log),
        }
        connection.sendall(json.dumps(order).encode() + b"\n")
        return Forked(connection)


@functools.cache
def prefork_server(module: str) -> PreforkServer:
    """Return this process's server for a service, started by the first call."""
    server = PreforkServer(module)
    atexit.register(server.close)
    return server


class Forked:
    """A forked service, with those methods of `subprocess.Popen` that `Child` calls."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers = connection.makefile()
        self._lock = threading.Lock()
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code; None while the service runs."""
        return self._ended(0)

    def wait(self, timeout: float) -> int:
        """Return the exit code; raises subprocess.TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal; does nothing after the end."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
                self.returncode = int(self._answers.readline() or -signal.SIGKILL)
                self._answers.close()
                self._connection.close()
            return self.returncode


class PreforkedChild(Child):
    """A `Child` that runs `python -m module` by a fork; `entry` is a module of the tests that runs it instead."""

    def __init__(
        self,
        name: str,
        module: str,
        *,
        log: Path,
        env: Mapping[str, str],
        directory: Path,
        entry: str | None = None,
    ) -> None:
        super().__init__(name, [], log=log, env=env, directory=directory)
        self._module = module
        self._entry = entry

    def start(self) -> None:
        """Start the process. Does nothing while it runs."""
        if self.running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        forked = prefork_server(self._module).fork(self._env or {}, self._directory, self.log, self._entry)
        self._process = cast(subprocess.Popen[bytes], forked)
