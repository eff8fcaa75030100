"""The life of a service process: start, ready, drain, exit code."""

import asyncio
import errno
import gc
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import structlog
import uvloop

from servicekit import logs, traces
from servicekit.collector import spare_what_is_there
from servicekit.errors import ServiceError, StartupError
from servicekit.freed_memory import return_large_blocks
from servicekit.settings import ServiceSettings
from servicekit.supervision import cancel_and_wait, supervise

__all__ = ["Background", "StartupError", "TaskDied", "run"]

CLEANUP_MARGIN = 5.0
"""Seconds that closing stores and channels may take on top of `drain_notice` and `drain_timeout`."""

S = TypeVar("S", bound=ServiceSettings)
Details = Mapping[str, object] | None
"""What `build` may yield: fields for the ready line, such as the bound ports."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger("servicekit.lifecycle")


class TaskDied(Exception):
    """A background task ended unexpectedly; the process can't continue without it."""

    def __init__(self, name: str, error: BaseException | None) -> None:
        what = "was cancelled from outside" if error is None else f"died of {type(error).__name__}"
        super().__init__(f"background task {name!r} {what}")
        self.name = name


class Background:
    """Owns named tasks for as long as it is open.

    A task that raises, or that is cancelled from outside, interrupts the `async with` block, which then raises
    `TaskDied` (under `run`: exit code 1). A task that returns is done. Leaving cancels all tasks and waits for them.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._owner: asyncio.Task[Any] | None = None
        self._death: TaskDied | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        return self

    def start(self, name: str, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs `coro` as the task `name`. Raises RuntimeError outside the `async with` block."""
        if self._owner is None or self._closing:
            coro.close()
            raise RuntimeError(f"background task {name!r} was started while its owner is not open")
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, name: str, work: Callable[[], Awaitable[object]]) -> asyncio.Task[Any]:
        """Runs `work`, which is meant never to end, and starts it again after a fault: see `supervise`."""
        return self.start(name, supervise(name, work))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing = True
        death = self._death
        cancelled_by_others = 0
        if death is not None and self._owner is not None:
            cancelled_by_others = self._owner.uncancel()  # what _ended asked for must not reach anybody outside
        await cancel_and_wait(*self._tasks)
        interrupted = isinstance(error, asyncio.CancelledError) and not cancelled_by_others
        if death is not None and (error is None or interrupted):
            raise death

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if not task.cancelled() and error is None:
            return
        if self._closing:
            if error is not None:
                log.error("background_task_failed_while_stopping", task=task.get_name(), exc_info=error)
            return
        log.error("background_task_died", task=task.get_name(), exc_info=error)
        if self._death is None and self._owner is not None:
            self._death = TaskDied(task.get_name(), error)
            self._death.__cause__ = error
            self._owner.cancel()


def run(build: Callable[[S], AbstractAsyncContextManager[Details]], settings: S | Callable[[], S]) -> NoReturn:
    """Runs a service until SIGTERM or SIGINT, then exits the process.

    `build(settings)` is entered (the service is up), one JSON line `{"event": "ready", ...}` with the details it
    yields goes to stderr, and on a signal it is left, within `drain_notice` plus `drain_timeout` plus 5 s. Exit code 0
    then; 1 with one clear line when it can't start (one for each wrong variable), when a background task died, or when
    it could not stop in time. Give the settings *class* rather than an instance, so that wrong environment variables
    are such lines, too.
    """
    name = getattr(build, "__module__", "service").partition(".")[0]
    try:
        ready_settings = settings if isinstance(settings, ServiceSettings) else settings()
    except (StartupError, ValueError) as error:
        _die(name, *(f"cannot start: {line}" for line in str(error).splitlines()))
    logs.configure(ready_settings.log_level, ready_settings.log_format)
    return_large_blocks()
    process = _Process(name)
    try:
        with traces.exporting(name), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            failure = runner.run(process.serve(build, ready_settings))
    except StartupError as error:
        failure = f"cannot start: {error}"
    if failure is not None:
        _die(name, failure)
    sys.exit(0)


class _Process:
    """One service from the first signal handler to its end; `serve` returns why it failed, or None."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._main: asyncio.Task[Any] | None = None
        self._stop = asyncio.Event()
        self._started = False

    async def serve(self, build: Callable[[S], AbstractAsyncContextManager[Details]], settings: S) -> str | None:
        self._main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        bound = asyncio.timeout(None)
        try:
            async with bound, build(settings) as details:
                try:
                    self._announce(details)
                    await self._stop.wait()
                finally:
                    drain = settings.drain_notice + settings.drain_timeout
                    bound.reschedule(loop.time() + drain + CLEANUP_MARGIN)
        except asyncio.CancelledError:
            if self._stop.is_set() and not self._started:
                return None
            raise
        except Exception as error:
            return "could not stop in time" if bound.expired() else self._describe(error)
        return None

    def _on_signal(self) -> None:
        if self._stop.is_set():
            return
        self._stop.set()
        if not self._started and self._main is not None:
            self._main.cancel()  # do not wait for a peer that a start is waiting for

    def _announce(self, details: Details) -> None:
        self._started = True
        _spare_the_collector()
        line = json.dumps({"event": "ready", "service": self._name, **(details or {})})
        print(line, file=sys.stderr, flush=True)

    def _describe(self, error: Exception) -> str:
        doing = "stopped" if self._started else "cannot start"
        if isinstance(error, StartupError | ServiceError | TaskDied):
            return f"{doing}: {error}"
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return f"{doing}: {(error.strerror or str(error)).lower()}"
        log.error("unexpected_exception", exc_info=error)
        return f"{doing}: {type(error).__name__}"


def _spare_the_collector() -> None:
    # What the start has made stays: the collector need not look at it again. Without that a collection is cheap, and
    # what a call leaves behind in cycles is found before it takes megabytes (docs/performance.md).
    spare_what_is_there()
    gc.set_threshold(1_000, 10, 10)


def _die(name: str, *lines: str) -> NoReturn:
    print(*(f"{name}: {line}" for line in lines), sep="\n", file=sys.stderr, flush=True)
    sys.exit(1)
