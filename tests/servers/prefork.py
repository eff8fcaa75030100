"""Starts programs by a fork of a process that has imported them: importing them takes most of the time of a start."""

import contextlib
import fcntl
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from parley_cli.processes.child import Child

SERVER = Path(__file__).with_name("prefork_server.py")
ANSWER_SECONDS = 60.0
REPOSITORY = Path(__file__).parents[2]


class PreforkServer:
    """A process that has imported `module` and forks it on request.

    It ends with the process `owner`, and its forks with it; a fork also ends with the process that asked for it.
    """

    def __init__(self, module: str, address: Path, owner: int) -> None:
        self._module = module
        self._address = address
        self._pid = None if address.exists() else self._start(owner)

    def close(self) -> None:
        """End it, and its forks, where this process has started it."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)

    def fork(
        self,
        env: Mapping[str, str],
        directory: Path,
        streams: Sequence[Path],
        *,
        arguments: Sequence[str] = (),
        entry: str | None = None,
    ) -> "Forked":
        """Start it with these files as stdin, stdout and stderr; `entry` is a module of the tests that runs it."""
        order = {
            "module": entry or self._module,
            "path": [str(REPOSITORY)] if entry else [],
            "arguments": list(arguments),
            "env": dict(env),
            "directory": str(directory),
            "streams": [str(stream) for stream in streams],
        }
        connection = self._connect()
        connection.sendall(json.dumps(order).encode() + b"\n")
        return Forked(connection)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(str(self._address))
        return connection

    def _start(self, owner: int) -> int:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._address))
            listener.listen()
            listener.set_inheritable(True)
            command = [sys.executable, "-P", str(SERVER), self._module, str(listener.fileno()), str(owner)]
            return os.posix_spawn(sys.executable, command, os.environ, setsid=True)


@functools.cache
def prefork_server(module: str) -> PreforkServer:
    """Return the run's server for a program, started by the first call of all workers."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = Path(tempfile.gettempdir()) / f"parley-{run}" if run else Path(tempfile.mkdtemp(prefix="parley-"))
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return PreforkServer(module, folder / module, os.getppid() if run else os.getpid())


class Forked:
    """A forked program, with those methods of `subprocess.Popen` that `Child` calls."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers = connection.makefile()
        self._lock = threading.Lock()
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
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
                self.close()
            return self.returncode

    def close(self) -> None:
        """Ask no more of it; it is killed if it runs."""
        self._answers.close()
        self._connection.close()


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
        streams = (Path(os.devnull), self.log, self.log)
        forked = prefork_server(self._module).fork(self._env or {}, self._directory, streams, entry=self._entry)
        self._process = cast(subprocess.Popen[bytes], forked)
