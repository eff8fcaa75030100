"""Parts that start in order, are watched, and stop in the reverse order."""

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
        """Its name for people; unique in one supervisor."""

    @property
    def child(self) -> Child | None:
        """The process; None before the first start."""

    @property
    def ready_seconds(self) -> float:
        """How long it may take from its launch until it is ready."""

    def launch(self) -> None:
        """Start the process without waiting for more; raises LocalError."""

    def ready(self) -> bool:
        """Return whether it can be used."""


class Supervisor:
    """Owns the parts that it started. Not for several threads."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    @property
    def parts(self) -> Sequence[Part]:
        """The parts that were started, in that order."""
        return tuple(self._parts)

    def start(self, parts: Sequence[Part], on_ready: Callable[[str], None]) -> None:
        """Start parts that do not depend on each other; `on_ready` is called with the name of each that is ready.

        Raises what a launch raises, ChildDied for any part that ends meanwhile, or NotReady.
        """
        self.check()
        for part in parts:
            # Listed before it runs: a start that fails or is interrupted half-way leaves nothing behind.
            self._parts.append(part)
            part.launch()
        self._wait(list(parts), on_ready)

    def _wait(self, waiting: list[Part], on_ready: Callable[[str], None]) -> None:
        began = time.monotonic()
        while waiting:
            self.check()
            for part in tuple(waiting):
                if part.ready():
                    waiting.remove(part)
                    on_ready(part.name)
                elif part.child is not None and time.monotonic() - began > part.ready_seconds:
                    raise NotReady(part.name, part.ready_seconds, part.child.log, last_line(part.child.log))
            time.sleep(POLL_SECONDS)

    def check(self) -> None:
        """Raise ChildDied for the first part that ended by itself."""
        for part in self._parts:
            if part.child is not None and not part.child.running:
                raise part.child.died()

    def watch(self, seconds: float, tick: Callable[[], None]) -> None:
        """Run until a part ends by itself, which raises ChildDied; call `tick` every so many seconds."""
        while True:
            self.check()
            tick()
            time.sleep(seconds)

    def stop(
        self,
        on_stopping: Callable[[str], None],
        hurried: Callable[[], bool] = lambda: False,
        timeout: float = STOP_SECONDS,
    ) -> list[str]:
        """Stop every part, the last started first, each in at most `timeout` seconds.

        `on_stopping` is called with the name of each. Parts that had to be killed, or exited with an error after they
        were asked to stop, are returned as complaints. A part that was still starting may be killed by the signal
        itself, which is none.
        """
        complaints = []
        while self._parts:
            part = self._parts.pop()
            child = part.child
            if child is None or not child.running:
                continue
            on_stopping(part.name)
            code = child.stop(timeout, hurried)
            if code not in (0, -child.stop_signal):
                complaints.append(f"{part.name} did not stop cleanly (exit code {code}, log {child.log})")
        return complaints
