"""A table of parts that start in order, are watched, and stop in the reverse order."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from parley_cli.errors import NotReady
from parley_cli.processes.child import POLL_SECONDS, Child, last_line

STOP_SECONDS = 20.0
"""How long one part may take to end by itself; services drain for 10 s by default and close their stores after that."""


class Part(Protocol):
    """Something that runs as one child process and knows by itself when it is ready."""

    @property
    def name(self) -> str:
        """What people call it; unique in one table."""

    @property
    def child(self) -> Child | None:
        """The process; None before the first start."""

    @property
    def ready_seconds(self) -> float:
        """How long it may take from its launch until it is ready."""

    def launch(self) -> None:
        """Start the process without waiting for more; raises LocalError."""

    def ready(self) -> bool:
        """Tell whether it can be used."""


class Supervisor:
    """Owns the parts that it started. Not for several threads."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    @property
    def parts(self) -> Sequence[Part]:
        """The parts that were started, in that order."""
        return tuple(self._parts)

    def start(self, parts: Sequence[Part], told: Callable[[str], None]) -> None:
        """Start parts that do not depend on each other, and tell the name of each that is ready.

        Raises what a launch raises, ChildDied for any part that ends meanwhile, or NotReady.
        """
        self.check()
        for part in parts:
            # In the table before it runs: a start that fails or is interrupted half-way leaves nothing behind.
            self._parts.append(part)
            part.launch()
        self._wait(list(parts), told)

    def _wait(self, waiting: list[Part], told: Callable[[str], None]) -> None:
        began = time.monotonic()
        while waiting:
            self.check()
            for part in tuple(waiting):
                if part.ready():
                    waiting.remove(part)
                    told(part.name)
                elif part.child is not None and time.monotonic() - began > part.ready_seconds:
                    raise NotReady(part.name, part.ready_seconds, part.child.log, last_line(part.child.log))
            time.sleep(POLL_SECONDS)

    def check(self) -> None:
        """Raise ChildDied for the first part that ended by itself."""
        for part in self._parts:
            if part.child is not None and not part.child.running:
                raise part.child.died()

    def watch(self, seconds: float, tick: Callable[[], None]) -> None:
        """Go on until a part ends by itself, which raises ChildDied; call `tick` every so many seconds."""
        while True:
            self.check()
            tick()
            time.sleep(seconds)

    def stop(
        self, told: Callable[[str], None], hurried: Callable[[], bool] = lambda: False, timeout: float = STOP_SECONDS
    ) -> list[str]:
        """Stop every part, the last started first, each in at most `timeout` seconds.

        Parts that had to be killed, or left with an error after they were asked to stop, are returned as complaints.
        (One that was still starting may know no better than to die of the signal.)
        """
        complaints = []
        while self._parts:
            part = self._parts.pop()
            child = part.child
            if child is None or not child.running:
                continue
            told(part.name)
            code = child.stop(timeout, hurried)
            if code not in (0, -child.stop_signal):
                complaints.append(f"{part.name} did not stop cleanly (exit code {code}, log {child.log})")
        return complaints
