"""The folder that a local system lives in: its lock, its state for `status` and `down`, and the ports it chose."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from parley_cli.errors import DataInUse, LocalError
from parley_cli.processes.ports import free_port, is_free

LOCK_WRITTEN_SECONDS = 1.0
CHECKED_SECONDS = 0.5
"""How long the lock may be held by others that only check whether it is owned."""
POLL_SECONDS = 0.02
LOG_BYTES = 16 * 2**20
"""A log beyond this is rotated, replacing the one before, when the system starts."""


class DataDirectory:
    """`.parley/`: readable by this user only, used by one `parley up` at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = self.path / "lock"
        self._state = self.path / "state.json"
        self._ports = self.path / "ports.json"

    def log(self, name: str) -> Path:
        """Path of the log of one part."""
        return self.path / "log" / f"{name}.log"

    def make(self) -> None:
        """Makes the folder; raises LocalError where that is impossible."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.log("any").parent.mkdir(exist_ok=True)
            for log in self.log("any").parent.glob("*.log"):
                if log.stat().st_size > LOG_BYTES:
                    log.replace(log.with_suffix(".log.1"))
        except OSError as error:
            raise LocalError(f"cannot use {self.path} for data: {error.strerror}") from None

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the folder until the block or the process ends; raises DataInUse while another `parley up` does."""
        self.make()
        with self._lock.open("a+") as file:
            if not _lock(file):
                raise DataInUse(self.path, f"another `parley up` (pid {self._owner_pid()})")
            self._state.unlink(missing_ok=True)  # of one that was killed
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                self._state.unlink(missing_ok=True)

    def owner(self) -> int | None:
        """Process id of the `parley up` that owns the folder now, or None. The lock decides, not what files say."""
        try:
            with self._lock.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return self._owner_pid()
        return None

    def _owner_pid(self) -> int:
        deadline = time.monotonic() + LOCK_WRITTEN_SECONDS
        while not (text := self._lock.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if not text.isdecimal():
            raise LocalError(f"{self._lock} is held by a process that has not written its pid")
        return int(text)

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace the state as a whole: a reader sees the old or the new one."""
        fresh = self._state.with_suffix(".new")
        fresh.write_text(json.dumps(state, indent=2) + "\n")
        fresh.replace(self._state)

    def read_state(self) -> dict[str, Any] | None:
        """Returns the state of the running system, or None."""
        try:
            state: dict[str, Any] = json.loads(self._state.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            raise LocalError(f"{self._state} is damaged: remove it") from None
        return state

    def port_for(self, name: str, wanted: int | None) -> int:
        """Returns the port that is wanted, or the one that `name` had before if it is free, or any free one."""
        if wanted is not None:
            return wanted
        remembered = self._remembered()
        port = remembered.get(name)
        if port is None or not is_free(port):
            port = free_port()
            self._ports.write_text(json.dumps(remembered | {name: port}, indent=2) + "\n")
        return port

    def _remembered(self) -> dict[str, int]:
        try:
            ports: dict[str, int] = json.loads(self._ports.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return ports


def _lock(file: IO[str]) -> bool:
    """Takes the lock for this process; false when another process keeps it."""
    deadline = time.monotonic() + CHECKED_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True
