"""Counts the Python functions that a piece of work calls."""

import asyncio
import selectors
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import structlog

TESTS = str(Path(__file__).parents[1])
EVENT_LOOP = (str(Path(asyncio.__file__).parent), selectors.__file__)
"""How often the loop goes round depends on when bytes arrive. Services run on uvloop, which is no Python."""
LOGS = str(Path(structlog.__file__).parent)
"""How many calls have a log line depends on how many there are in a second."""


class PythonCalls:
    """What was called in this thread, but for the code of tests, the event loop, and whatever writes log lines.

    A coroutine counts once each time it goes on, as the interpreter sees it.
    """

    def __init__(self) -> None:
        self.called: Counter[str] = Counter()
        self._skipped: dict[str, bool] = {}
        self._logging: FrameType | None = None

    @property
    def number(self) -> int:
        return self.called.total()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts within the block."""
        before = sys.getprofile()
        sys.setprofile(self._see)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _see(self, frame: FrameType, event: str, argument: object) -> None:
        if self._logging is not None:
            if event == "return" and frame is self._logging:
                self._logging = None
            return
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename.startswith(LOGS):
            self._logging = frame
            return
        skipped = self._skipped.get(code.co_filename)
        if skipped is None:
            skipped = self._skipped[code.co_filename] = code.co_filename.startswith((TESTS, *EVENT_LOOP))
        if not skipped:
            self.called[f"{code.co_filename}:{code.co_qualname}"] += 1
