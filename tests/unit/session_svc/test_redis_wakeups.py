"""The channel by which waiters are woken, against a server that falls silent."""

import asyncio
import contextlib
from typing import Any

import pytest

from session_svc.redis_store import wakeups
from session_svc.redis_store.wakeups import RedisWakes
from session_svc.wiring import open_redis
from tests.unit.session_svc.fake_redis import FakeNode

SUBSCRIBED = "*3\r\n$9\r\nsubscribe\r\n$1\r\nw\r\n:1"


@pytest.mark.slow
async def test_a_channel_that_falls_silent_is_made_again_and_whoever_waits_is_woken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wakeups, "PING_SECONDS", 0.5)
    async with contextlib.AsyncExitStack() as stack:
        node = await stack.enter_async_context(FakeNode().open())
        node.answer = lambda _: SUBSCRIBED
        _, dial = await stack.enter_async_context(open_redis(f"redis://127.0.0.1:{node.port}", 0))
        wakes = await stack.enter_async_context(RedisWakes(dial).open())
        async with asyncio.timeout(60):
            await wakes.wait("subscribed", 60)
            await asyncio.sleep(1.2)
            assert (len(node.ran), node.left) == (1, 0), "it answers PINGs"
            node.silent = True
            while not node.left:
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(wakes.wait("waits", 600))
            node.silent = False
            await waiting
        assert len(node.ran) == 2


async def test_it_ends_where_the_cancellation_of_its_listener_was_swallowed() -> None:
    sending, closed = asyncio.Event(), asyncio.Event()

    class Connection:
        async def send_command(self, *_: str, check_health: bool) -> None:
            sending.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

        async def read_response(self, timeout: float) -> None:
            await asyncio.sleep(timeout)

        async def disconnect(self, nowait: bool) -> None:
            closed.set()

    async def dial() -> Any:
        return Connection()

    async with asyncio.timeout(60):
        async with RedisWakes(dial).open():
            await sending.wait()
    assert closed.is_set()
