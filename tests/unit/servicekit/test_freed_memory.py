"""Memory that large requests took is the system's again."""

import asyncio
import subprocess
import sys
from types import SimpleNamespace

import pytest

from servicekit import freed_memory

SCRIPT = """
import psutil
from servicekit.freed_memory import return_large_blocks
return_large_blocks()
resident = psutil.Process().memory_info
before = resident().rss
for _ in range(3):
    held = [b"x" * (24 * 1024 * 1024)] + [b"x" * 300_000 for _ in range(200)]
    barrier = b"y" * 400_000  # behind them in the heap, where they are not mapped by themselves
    del held
print(resident().rss - before)
"""


@pytest.mark.slow
def test_large_blocks_are_given_back_when_they_are_freed() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert int(ran.stdout) < 24 * 1024 * 1024


async def test_freed_memory_is_given_back_once_for_many_that_freed_some(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[int] = []
    monkeypatch.setattr(freed_memory, "_libc", lambda: SimpleNamespace(malloc_trim=trimmed.append))
    freed = freed_memory.FreedMemory(settle_seconds=0.01)
    for _ in range(100):
        freed.note()
    async with asyncio.timeout(60):
        while not trimmed:
            await asyncio.sleep(0.01)
    assert trimmed == [0]


async def test_a_libc_without_it_is_none_of_anybodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "_libc", SimpleNamespace)
    freed_memory.return_large_blocks()
    freed_memory.FreedMemory().note()


def test_threads_share_two_arenas(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[int, int] = {}
    monkeypatch.setattr(freed_memory, "_libc", lambda: SimpleNamespace(mallopt=options.__setitem__))
    freed_memory.return_large_blocks()
    assert options[-8] == 2  # M_ARENA_MAX
