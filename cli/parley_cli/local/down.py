"""`parley down`: end the system of a data directory. Imports nothing that only a running system needs."""

import os
import signal
import time

from parley_cli.errors import LocalError
from parley_cli.local.data_directory import DataDirectory

DOWN_SECONDS = 180.0
POLL_SECONDS = 0.1


def down(data: DataDirectory) -> bool:
    """Stops the system of a data directory, and waits for its end; returns whether there was one. Idempotent."""
    pid = data.owner()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while data.owner() == pid:
        if time.monotonic() > deadline:
            raise LocalError(f"`parley up` (pid {pid}) has not ended after {DOWN_SECONDS:g} s")
        time.sleep(POLL_SECONDS)
    return True
