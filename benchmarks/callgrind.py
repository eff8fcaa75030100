"""Instructions that a running process executes, counted by valgrind's callgrind."""

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.system import BenchmarkFailed

ANSWER_SECONDS = 60.0
_OPTIONS = ("--tool=callgrind", "--instr-atstart=no", "--dump-line=no", "--quiet")


class ValgrindMissing(Exception):
    """There is no valgrind on this machine; the message says what to install."""


def check_installed() -> None:
    """Raises `ValgrindMissing` where valgrind is not installed."""
    if not (shutil.which("valgrind") and shutil.which("vgdb")):
        raise ValgrindMissing(
            "instructions are counted by valgrind, which is not on this machine: install its package "
            "(apt-get install valgrind, or your system's way)"
        )


def command(dumps: Path) -> list[str]:
    """Returns what stands before a command whose instructions are to be counted; files beside `dumps` hold the counts.

    Nothing is counted until `Counter.start`, so that the start of a service takes seconds and not a minute.
    """
    return [shutil.which("valgrind") or "valgrind", *_OPTIONS, f"--callgrind-out-file={dumps}"]


def instructions_in(dump: str) -> int:
    """Returns the instructions that a dump of callgrind counts. Raises `BenchmarkFailed` for what is none."""
    lines = dump.splitlines()
    if "events: Ir" not in lines:
        raise BenchmarkFailed("callgrind counted something else than instructions")
    totals = [line.removeprefix("totals:") for line in lines if line.startswith("totals:")]
    if len(totals) != 1:
        raise BenchmarkFailed("callgrind's dump has no end")
    return int(totals[0])


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process executed in so many seconds."""

    instructions: int
    seconds: float


class Counter:
    """Counts the instructions of one process that runs under `command(dumps)`, all its threads together."""

    def __init__(self, pid: int, dumps: Path) -> None:
        self._pid = pid
        self._dumps = dumps
        self._since = time.perf_counter()

    def start(self) -> None:
        """Begin to count. The process is some ten times slower from now on."""
        self._tell("instrumentation", "on")

    def take(self) -> Taken:
        """Returns what was executed since the last `take`, and count anew from nought. Raises `BenchmarkFailed`."""
        asked = time.perf_counter()
        self._tell("dump")
        files = list(self._dumps.parent.glob(f"{self._dumps.name}.*"))
        if len(files) != 1:
            raise BenchmarkFailed(f"callgrind wrote {len(files)} dumps of process {self._pid}, not one")
        counted = instructions_in(files[0].read_text())
        files[0].unlink()
        seconds, self._since = asked - self._since, time.perf_counter()
        return Taken(counted, seconds)

    def _tell(self, *what: str) -> None:
        try:
            done = subprocess.run(
                ["vgdb", f"--pid={self._pid}", *what],
                capture_output=True,
                text=True,
                timeout=ANSWER_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise BenchmarkFailed(f"valgrind did not {what[0]} process {self._pid} in {ANSWER_SECONDS:g} s") from late
        if done.returncode:
            raise BenchmarkFailed(f"vgdb {what[0]}: {done.stderr.strip()}")
