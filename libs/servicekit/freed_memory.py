"""Gives freed memory back to the system: else a process keeps for good what its large requests took."""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2
"""Of malloc, for all threads: each has free memory that the others can't use. One is the thread's of the event loop."""
_LARGE_BYTES: Final = 256 * 1024
"""From here on memory is mapped by itself, and unmapped when it is freed. glibc's own threshold grows with what is
freed, up to 32 MiB."""
SETTLE_SECONDS: Final = 2.0
"""How long after the last large request memory is returned to the system."""


def return_large_blocks() -> None:
    """Has large blocks returned to the system as soon as they are freed, and threads share what is free.

    For the start of a process; nothing where libc can't.
    """
    if (mallopt := getattr(_libc(), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)


class FreedMemory:
    """Returns to the system what lies between blocks that are in use, once large requests are over for a while."""

    def __init__(self, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._settle_seconds = settle_seconds
        self._trim: Callable[[int], int] | None = getattr(_libc(), "malloc_trim", None)
        self._timer: asyncio.TimerHandle | None = None

    def note(self) -> None:
        """Notes that something large was freed. Costs nothing."""
        if self._trim is None or self._timer is not None:
            return
        self._timer = asyncio.get_running_loop().call_later(self._settle_seconds, self._give_back)

    def _give_back(self) -> None:
        self._timer = None
        assert self._trim is not None
        # Takes some milliseconds, in which the loop goes on: ctypes releases the interpreter's lock.
        asyncio.get_running_loop().run_in_executor(None, self._trim, 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
