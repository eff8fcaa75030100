"""Work that goes on for as long as its owner is open, also after a fault of its own."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

import structlog

PAUSE_SECONDS = 1.0
"""Between a first fault and the next start; it doubles with each further one, up to `MAX_PAUSE_SECONDS`."""
MAX_PAUSE_SECONDS = 30.0

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
    `restarting` has the work meanwhile. Ends by being cancelled only.
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
        error: Exception | None = None
        begin = time.monotonic()
        try:
            await work()
        except Exception as fault:
            if task is not None and task.cancelling():
                raise  # a fault on the way out: it must not keep the task from ending
            error = fault
        now = time.monotonic()
        pause = min(2 * pause, max_seconds) if pause and now - begin < 2 * pause else pause_seconds
        _restarting[name] = now + 3 * pause, type(error).__name__ if error is not None else "it ended"
        log.error("background_task_restarted", task=name, pause_seconds=pause, exc_info=error)
        await asyncio.sleep(pause)
