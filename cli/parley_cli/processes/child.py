"""One child process: it starts, is waited for, stops in a bounded time, and never outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path

import psutil

from parley_cli.errors import ChildDied, NotReady

LAUNCHER = Path(__file__).with_name("launch.py")
POLL_SECONDS = 0.02
PAUSE_SECONDS = 5.0
TAIL_BYTES = 4096

# The kernel's death signal follows the *thread* that forked: one that lives as long as this process.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class Identity(StrEnum):
    """Who a child is: this user, this user behind another uid, or the system's `nobody` (see launch.py)."""

    SAME = "same"
    USERNS = "userns"
    NOBODY = "nobody"


def launch_command(
    argv: Sequence[str], *, identity: Identity, directory: Path, death_signal: signal.Signals | None
) -> list[str]:
    """Returns the command line that becomes `argv` in `directory`, as `identity`, bound to this process's life."""
    bound = [str(os.getpid()), str(int(death_signal or 0)), str(identity), str(directory)]
    return [sys.executable, "-I", "-S", str(LAUNCHER), *bound, *argv]


def last_line(log: Path) -> str:
    """Returns the last line of a log that says anything, or an empty string."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


class Child:
    """A named child process whose output goes to a log file.

    It has a session of its own (a terminal's Ctrl-C reaches the parent alone, which ends its children in order), and
    the kernel ends it with `death_signal` when the parent dies. It can be started again after it ended.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        directory: Path | None = None,
        identity: Identity = Identity.SAME,
        death_signal: signal.Signals | None = signal.SIGKILL,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._argv = list(argv)
        self._env = dict(env) if env is not None else None
        self._directory = directory or Path.cwd()
        self._identity = identity
        self._death_signal = death_signal
        self.stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process. Does nothing while it runs."""
        if self.running:
            return
        command = launch_command(
            self._argv, identity=self._identity, directory=self._directory, death_signal=self._death_signal
        )
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            spawned = _spawner.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )
            try:
                self._process = spawned.result()
            except BaseException:
                # Interrupted while waiting: the process starts all the same, and must stay stoppable.
                self._process = spawned.result()
                raise

    @property
    def pid(self) -> int:
        """The process id; a RuntimeError before the first start."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """True from `start` until the process ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for the signal that killed it; None while it runs or before it was started."""
        return None if self._process is None else self._process.poll()

    def died(self) -> ChildDied:
        """Returns the error that describes this child's end."""
        code = self.exit_code
        return ChildDied(self.name, 0 if code is None else code, self.log, last_line(self.log))

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Waits until `ready` answers true; raises ChildDied or, after `timeout` seconds, NotReady."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running:
                raise self.died()
            if time.monotonic() > deadline:
                raise NotReady(self.name, timeout, self.log, last_line(self.log))
            time.sleep(POLL_SECONDS)

    def wait(self, timeout: float) -> int:
        """Waits for the process to end by itself, and returns its exit code; after `timeout` seconds it is killed."""
        try:
            return self._started().wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def stop(self, timeout: float = 15.0, hurried: Callable[[], bool] = lambda: False) -> int:
        """Asks the process to end, and returns its exit code.

        After `timeout` seconds, or as soon as `hurried` answers true, it is killed (code -9).
        """
        process = self._started()
        if process.poll() is None:
            process.send_signal(self.stop_signal)
            # A paused process handles nothing but SIGKILL and SIGCONT.
            process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + timeout
        while process.poll() is None:
            if time.monotonic() > deadline or hurried():
                return self.kill()
            time.sleep(POLL_SECONDS)
        return process.returncode

    def kill(self) -> int:
        """Ends the process at once by SIGKILL, and returns its exit code."""
        process = self._started()
        process.kill()
        return process.wait(timeout=10)

    def pause(self) -> None:
        """Suspend the process (SIGSTOP) until `resume`. Returns when it is stopped."""
        process = psutil.Process(self.pid)
        self._started().send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + PAUSE_SECONDS
        while process.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def resume(self) -> None:
        """Resume a paused process (SIGCONT)."""
        self._started().send_signal(signal.SIGCONT)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process
