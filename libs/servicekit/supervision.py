"""Supervised work, which is restarted after a fault for as long as its owner is open."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NoReturn

import structlog

PAUSE_SECONDS = 1.0
"""The pause after a first fault; it doubles with each further one, up to `MAX_PAUSE_SECONDS`."""
MAX_PAUSE_SECONDS = 30.0
AGAIN_SECONDS = 0.5
"""The time after which a task that is still running is cancelled once more."""

log = structlog.get_logger("servicekit.supervision")

_restarting: dict[str, tuple[float, str]] = {}


def restarting() -> Mapping[str, str]:
    """Returns the names of supervised work of this process that a fault ended a moment ago, and the kind of fault.

    Work that has run for longer than its last pause since then is not among them any more.
    """
    now = time.monotonic()
    return {name: fault for name, (until, fault) in _restarting.items() if until > now}


async def supervise(
    name: str,
    work: Callable[[], Awaitable[object]],
    *,
    pause_seconds: float = PAUSE_SECONDS,
    max_pause_seconds: float = MAX_PAUSE_SECONDS,
) -> NoReturn:
    """Runs `work`, which is meant never to end; when it does, logs that and starts it again after a pause.

    Pauses grow while faults follow on one another, so that one that comes back at once does not take the processor.
    `restarting` has the work meanwhile. Ends by being cancelled only: a `CancelledError` that comes from elsewhere, as
    from a future that somebody else cancelled, is a fault like any other. A cancellation that `work` swallowed counts.
    """
    try:
        await _repeat(name, work, pause_seconds, max_pause_seconds)
    finally:
        _restarting.pop(name, None)
    raise AssertionError


async def _repeat(name: str, work: Callable[[], Awaitable[object]], pause_seconds: float, max_seconds: float) -> None:
    task = asyncio.current_task()
    pause = 0.0
    while True:
        error: BaseException | None = None
        begin = time.monotonic()
        try:
            await work()
        except (Exception, asyncio.CancelledError) as fault:
            if task is None or task.cancelling():
                raise  # a fault on the way out: it must not keep the task from ending
            error = fault
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        now = time.monotonic()
        pause = min(2 * pause, max_seconds) if pause and now - begin < 2 * pause else pause_seconds
        _restarting[name] = now + 3 * pause, type(error).__name__ if error is not None else "it ended"
        log.error("background_task_restarted", task=name, pause_seconds=pause, exc_info=error)
        await asyncio.sleep(pause)


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and returns when all have ended, however they did; what they raise is dropped.

    A task that keeps running is cancelled repeatedly: before Python 3.12 `asyncio.wait_for`, which libraries use,
    swallows a cancellation that comes when what it waits for is done.
    """
    going: Iterable[asyncio.Task[Any]] = tasks
    while going := [task for task in going if not task.done()]:
        for task in going:
            task.cancel()
        await asyncio.wait(going, timeout=AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # or asyncio would log that it was never retrieved
