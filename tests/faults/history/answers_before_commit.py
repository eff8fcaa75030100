"""chat_gateway that answers first and stores later, if it lives that long: what the history checker must notice.

Run as a module, as chat_gateway itself is. Nothing in services/ knows of it.
"""

import asyncio
import itertools
import runpy
from datetime import UTC, datetime
from typing import Any

from chat_gateway.leases import HeldLease
from chat_gateway.model.stored_turn import Committed

DELAY_SECONDS = 0.2
EVERY = 4
"""One in so many is lost, from the first on: as if the process had been killed between the answer and the commit."""

_commit = HeldLease._commit
_commits: set[asyncio.Task[None]] = set()
_numbers = itertools.count()


async def commit_later(lease: HeldLease, *arguments: Any) -> Committed:
    """Say that the turn is stored, and store it in a moment."""

    async def store() -> None:
        await asyncio.sleep(DELAY_SECONDS)
        if number % EVERY:
            await _commit(lease, *arguments)

    number = next(_numbers)
    task = asyncio.get_running_loop().create_task(store())
    _commits.add(task)
    task.add_done_callback(_commits.discard)
    lease._released = True
    return Committed(1, datetime.now(UTC))


if __name__ == "__main__":
    # Below `commit`, which still ends the turn's own bound: the commit that follows is a good one, only late.
    HeldLease._commit = commit_later  # type: ignore[method-assign]
    runpy.run_module("chat_gateway", run_name="__main__")
