"""Work that goes on for as long as its owner is open, also after a fault of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

PAUSE_SECONDS = 1.0
"""Between a fault and the next start, so that one that comes back at once does not take the processor."""

log = structlog.get_logger("servicekit.supervision")


async def supervise(
    name: str, work: Callable[[], Awaitable[object]], *, pause_seconds: float = PAUSE_SECONDS
) -> NoReturn:
    """Runs `work`, which is meant never to end; when it does, logs that and starts it again after a pause.

    For work whose owner has no `lifecycle.Background` that would end the process, and that can begin anew at any time.
    Ends by being cancelled only.
    """
    task = asyncio.current_task()
    while True:
        error: Exception | None = None
        try:
            await work()
        except Exception as fault:
            if task is not None and task.cancelling():
                raise  # a fault on the way out: it must not keep the task from ending
            error = fault
        log.error("background_task_restarted", task=name, exc_info=error)
        await asyncio.sleep(pause_seconds)
