"""Parts that start in order, are watched and started again when they die, and stop in the reverse order."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from parley_cli.errors import LocalError, NotReady
from parley_cli.processes.child import POLL_SECONDS, Child, last_line

STOP_SECONDS = 20.0
"""How long one part may take to end by itself; services drain for 10 s by default and close their stores after that."""
MAX_RESTARTS = 3
"""How often one part is started again within `RESTART_WINDOW_SECONDS`; the next end is final."""
RESTART_WINDOW_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.5
"""Before the first restart within the window; each further one waits four times as long."""
PAUSE_FACTOR = 4


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
        """Starts the process without waiting for more; raises LocalError."""

    def ready(self) -> bool:
        """Returns whether it can be used."""


@dataclass(slots=True)
class _Restarts:
    """Those of one part: when they were, and what is due."""

    times: deque[float] = field(default_factory=deque)
    due: float | None = None
    """When it is to be started again; None while it runs."""
    ready_by: float | None = None
    """Until when it must be ready again; None once it is."""


class Restarter:
    """Starts parts that died again: after a pause that grows, at most three times a minute each.

    `say` is called with a line for every death and every return; `changed` when the processes are others.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        changed: Callable[[], None],
        *,
        first_pause: float = FIRST_PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._changed = changed
        self._first_pause = first_pause
        self._clock = clock
        self._restarts: dict[str, _Restarts] = {}

    def look_after(self, part: Part, child: Child) -> None:
        """Does what is due for a part. Raises ChildDied when it died too often; NotReady, or what its launch raises."""
        restarts = self._restarts.setdefault(part.name, _Restarts())
        now = self._clock()
        if restarts.due is not None:
            if now >= restarts.due:
                self._start(part, child, restarts, now)
        elif not child.running:
            self._note_death(part, child, restarts, now)
        elif restarts.ready_by is not None:
            if part.ready():
                restarts.ready_by = None
                self._say(f"{part.name} is ready again")
            elif now > restarts.ready_by:
                raise NotReady(part.name, part.ready_seconds, child.log, last_line(child.log))

    def _note_death(self, part: Part, child: Child, restarts: _Restarts, now: float) -> None:
        while restarts.times and now - restarts.times[0] > RESTART_WINDOW_SECONDS:
            restarts.times.popleft()
        count = len(restarts.times)
        if count >= MAX_RESTARTS:
            self._say(f"{part.name} died {count + 1} times within a minute: not started again")
            raise child.died()
        pause = self._first_pause * PAUSE_FACTOR**count
        restarts.times.append(now)
        restarts.due = now + pause
        restarts.ready_by = None
        self._say(f"{child.died()}; starting it again in {pause:g} s ({count + 1} of {MAX_RESTARTS} a minute)")
        self._changed()

    def _start(self, part: Part, child: Child, restarts: _Restarts, now: float) -> None:
        restarts.due = None
        try:
            part.launch()
        except LocalError as error:
            # A port that its last process has not released yet, for one: as if it had died at once.
            if len(restarts.times) >= MAX_RESTARTS:
                raise
            pause = self._first_pause * PAUSE_FACTOR ** len(restarts.times)
            restarts.times.append(now)
            restarts.due = now + pause
            self._say(f"{error}; trying again in {pause:g} s")
            return
        restarts.ready_by = now + part.ready_seconds
        self._changed()


class Supervisor:
    """Owns the parts that it started. Not for several threads."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    @property
    def parts(self) -> Sequence[Part]:
        """The parts that were started, in that order."""
        return tuple(self._parts)

    def start(self, parts: Sequence[Part], on_ready: Callable[[str], None]) -> None:
        """Starts parts that do not depend on each other; `on_ready` is called with the name of each that is ready.

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
        """Raises ChildDied for the first part that ended by itself."""
        for part in self._parts:
            if part.child is not None and not part.child.running:
                raise part.child.died()

    def watch(self, seconds: float, tick: Callable[[], None], restarter: Restarter | None = None) -> None:
        """Runs until something raises; calls `tick` every `seconds`.

        A part that ends by itself is left to the `restarter`, which raises when it gives up. Without one, that
        raises ChildDied.
        """
        while True:
            if restarter is None:
                self.check()
            else:
                for part in self._parts:
                    if part.child is not None:
                        restarter.look_after(part, part.child)
            tick()
            time.sleep(seconds)

    def stop(
        self,
        on_stopping: Callable[[str], None],
        hurried: Callable[[], bool] = lambda: False,
        timeout: float = STOP_SECONDS,
    ) -> list[str]:
        """Stops every part, the last started first, each in at most `timeout` seconds.

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
