"""The event loop, for tests of tasks that meet in it."""

import asyncio


async def settle() -> None:
    """Let every task go as far as it gets before time passes: however slow the machine is, that is as far."""
    for _ in range(100):
        await asyncio.sleep(0)
