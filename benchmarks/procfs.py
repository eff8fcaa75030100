"""CPU time and memory of processes, from /proc (Linux)."""

import os
from collections.abc import Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_UTIME, _CSTIME = 13, 17
_BUSY_FIELDS = (1, 2, 3, 6, 7)  # user, nice, system, irq, softirq


def cpu_seconds(pid: int) -> float:
    """Returns user and system time of a process with all its threads, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # `fields` begins with the third of proc(5), hence two fewer.
    return sum(map(int, fields[_UTIME - 2 : _CSTIME - 1])) / _TICKS


def cpu_of(pids: Mapping[str, int]) -> dict[str, float]:
    """Returns the CPU seconds of each process."""
    return {name: cpu_seconds(pid) for name, pid in pids.items()}


def machine_busy_seconds() -> float:
    """Returns the CPU seconds that all cores together have worked."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(fields[at]) for at in _BUSY_FIELDS) / _TICKS


def memory_mb(pid: int) -> tuple[float, float]:
    """Returns the resident memory of a process now, and the most it ever was, in MB (2**20 bytes)."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(status["VmRSS"].split()[0]) / 1024, int(status["VmHWM"].split()[0]) / 1024


def hardware() -> dict[str, str | int]:
    """Returns what machine this is."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "")
    total = Path("/proc/meminfo").read_text().split(None, 2)[1]
    system = os.uname()
    return {
        "processor": model,
        "cores": os.cpu_count() or 0,
        "memory_gb": round(int(total) / 2**20),
        "kernel": f"{system.sysname} {system.release}",
    }
