"""A bound on a block's time, for what every call pays for."""

import asyncio
from types import TracebackType
from typing import Self


class Deadline:
    """`asyncio.timeout`, with the same meaning in a third of its time (2.5 instead of 7.5 µs).

    A plain context manager: enter it in the task that it bounds. When the time is over the task is cancelled, and the
    block ends with `TimeoutError`, unless somebody else had the task cancelled, too.
    """

    __slots__ = ("_cancels", "_loop", "_seconds", "_struck", "_task", "_timer")

    def __init__(self, seconds: float | None) -> None:
        """Takes the seconds from the block's begin; None: no bound, until `reschedule` sets one."""
        self._seconds = seconds
        self._struck = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline bounds a task")
        self._task = task
        self._cancels = task.cancelling()
        self._loop = asyncio.get_running_loop()
        if self._seconds is not None:
            self._timer = self._loop.call_later(self._seconds, self._strike)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if self._struck and self._task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expired(self) -> bool:
        """Tells whether the time was over before the block."""
        return self._struck

    def reschedule(self, when: float | None) -> None:
        """Sets another end, in the loop's time, or none. Does nothing once the time was over."""
        self._stop()
        if when is not None and not self._struck:
            self._timer = self._loop.call_at(when, self._strike)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _strike(self) -> None:
        self._timer = None
        self._struck = True
        self._task.cancel()
