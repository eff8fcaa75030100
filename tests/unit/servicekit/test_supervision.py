"""Work that is started again after a fault, where nothing else would notice that it ended."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing

import pytest
from structlog.testing import capture_logs

from callstream.client import CallStreamClient
from servicekit.channels import open_channel
from servicekit.lifecycle import Background
from servicekit.supervision import cancel_and_wait, restarting, supervise
from session_svc.redis_client.cluster import Topology
from session_svc.redis_client.server import RedisLink
from session_svc.redis_client.url import parse_redis_url
from session_svc.redis_store.wakeups import RedisWakes
from session_svc.wiring import open_redis
from tests.unit.callstream.echo import PROTOCOL


class Work:
    """Dies of a fault the first time, ends the second, and goes on from the third on."""

    def __init__(self) -> None:
        self.starts = 0
        self.going = asyncio.Event()

    async def __call__(self) -> None:
        self.starts += 1
        if self.starts == 1:
            raise ZeroDivisionError
        if self.starts > 2:
            self.going.set()
            await asyncio.Event().wait()


async def test_work_is_started_again_with_a_line_in_the_log() -> None:
    work = Work()
    with capture_logs() as logs:
        task = asyncio.create_task(supervise("some work", work, pause_seconds=0.01))
        await asyncio.wait_for(work.going.wait(), 60)
    assert [(line["task"], type(line["exc_info"])) for line in logs] == [
        ("some work", ZeroDivisionError),
        ("some work", type(None)),
    ]
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.starts == 3


async def test_pauses_grow_while_faults_follow_on_one_another_and_the_work_is_named_meanwhile() -> None:
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts < 5:
            raise ZeroDivisionError
        await asyncio.Event().wait()

    with capture_logs() as logs:
        async with Background() as background:
            task = background.keep("part", lambda: supervise("inner", work, pause_seconds=0.01, max_pause_seconds=0.05))
            async with asyncio.timeout(60):
                while starts < 2:
                    await asyncio.sleep(0.001)
                assert restarting()["inner"] == "ZeroDivisionError"
                while starts < 5 or "inner" in restarting():
                    await asyncio.sleep(0.01)
            assert not task.done()
    assert [line["pause_seconds"] for line in logs] == [0.01, 0.02, 0.04, 0.05]


async def test_a_cancellation_that_nobody_asked_for_is_a_fault_as_any_other() -> None:
    going, starts = asyncio.Event(), 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        going.set()
        await asyncio.Event().wait()

    with capture_logs() as logs:
        async with Background() as background:
            task = background.keep("part", lambda: supervise("some work", work, pause_seconds=0.01))
            await asyncio.wait_for(going.wait(), 60)
            assert not task.done()
    assert [(line["task"], type(line["exc_info"])) for line in logs] == [("some work", asyncio.CancelledError)]


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "returns"])
async def test_a_cancellation_that_is_swallowed_ends_the_work_all_the_same(goes_on: bool) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if goes_on:
            await asyncio.Event().wait()

    with capture_logs() as logs:
        task = asyncio.create_task(supervise("some work", work, pause_seconds=0.01))
        await begun.wait()
        async with asyncio.timeout(60):
            await cancel_and_wait(task)
    assert task.cancelled()
    assert logs == []


async def test_a_fault_on_the_way_out_does_not_keep_it_from_ending() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    task = asyncio.create_task(supervise("some work", work, pause_seconds=0.01))
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(ZeroDivisionError):
            await task


async def test_those_without_an_owner_that_notices_are_supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(supervise.__kwdefaults__, "pause_seconds", 0.01)
    dial, seeds = parse_redis_url("redis://127.0.0.1:1/0"), parse_redis_url("redis+cluster://127.0.0.1:1")
    assert isinstance(seeds, list)
    assert not isinstance(dial, list)
    channel = open_channel("127.0.0.1:1")
    owners = (
        (Topology, "_keep_fresh", lambda: aclosing(Topology(seeds).start())),
        (RedisLink, "_keep_up", lambda: open_redis("redis://127.0.0.1:1/0", 1)),
        (RedisWakes, "_listen", lambda: RedisWakes(dial).open()),
        (CallStreamClient, "_keep", lambda: CallStreamClient(PROTOCOL, (), channel, peer="nobody", streams=1).open()),
    )

    async def is_supervised(
        owner: type, method: str, opened: Callable[[], AbstractAsyncContextManager[object]]
    ) -> None:
        work = Work()
        monkeypatch.setattr(owner, method, lambda self: work())
        async with opened():
            await asyncio.wait_for(work.going.wait(), 60)
        assert work.starts == 3, owner

    await asyncio.gather(*(is_supervised(*owner) for owner in owners))
    await channel.close()
