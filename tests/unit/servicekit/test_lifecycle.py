import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from servicekit.lifecycle import Background, TaskDied

SCRIPT = Path(__file__).with_name("process_under_test.py")


@contextlib.contextmanager
def process(behaviour: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    variables = {**os.environ, **{f"PARLEY_{key}": value for key, value in env.items()}}
    child = subprocess.Popen(
        [sys.executable, str(SCRIPT), behaviour],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def first_line(child: subprocess.Popen[str]) -> str:
    assert child.stderr is not None
    return child.stderr.readline()


def ending(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_in_good_order(number: signal.Signals) -> None:
    with process("serves") as child:
        ready = json.loads(first_line(child))
        assert ready["event"] == "ready"
        assert ready["grpc_port"] > 0
        child.send_signal(number)
        assert ending(child) == (0, "left\n", "")


@pytest.mark.slow
def test_the_ready_line_is_printed_at_any_log_level_and_format() -> None:
    with process("serves", LOG_LEVEL="error", LOG_FORMAT="console") as child:
        assert json.loads(first_line(child))["event"] == "ready"
        child.terminate()
        assert ending(child)[0] == 0


@pytest.mark.slow
def test_repeated_signals_do_no_harm() -> None:
    with process("serves") as child:
        first_line(child)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            child.send_signal(number)
        assert ending(child)[:2] == (0, "left\n")


@pytest.mark.slow
def test_a_signal_while_the_process_exits_changes_nothing() -> None:
    with process("is signalled while exiting") as child:
        first_line(child)
        child.terminate()
        assert ending(child) == (0, "left\n", "")


@pytest.mark.slow
def test_a_signal_during_a_start_that_hangs_ends_it() -> None:
    with process("hangs at start") as child:
        assert first_line(child) == "hanging\n"
        child.terminate()
        assert ending(child) == (0, "", "")


@pytest.mark.slow
def test_a_dead_background_task_ends_the_process_with_1() -> None:
    with process("task dies") as child:
        code, out, err = ending(child)
    assert (code, out) == (1, "left\n")
    assert err.splitlines()[-1] == "__main__: stopped: background task 'watch' died of KeyError"
    assert "the feed is gone" in json.loads(err.splitlines()[-2])["exception"]


@pytest.mark.slow
def test_a_taken_port_is_one_line_and_1(taken_port: int) -> None:
    with process("serves", GRPC_PORT=str(taken_port)) as child:
        assert ending(child) == (
            1,
            "",
            f"__main__: cannot start: port 127.0.0.1:{taken_port} is taken by another process\n",
        )


@pytest.mark.slow
def test_a_service_error_at_start_is_one_line_and_1() -> None:
    with process("peer away") as child:
        assert ending(child) == (1, "", "__main__: cannot start: postgres is unavailable\n")


@pytest.mark.slow
def test_an_open_door_is_one_line_and_1() -> None:
    with process("serves", HOST="0.0.0.0") as child:
        code, _, err = ending(child)
    assert code == 1
    assert err.count("\n") == 1
    assert "HOST: '0.0.0.0' is reachable from other machines while authentication is off" in err


@pytest.mark.slow
def test_wrong_settings_are_a_line_for_each_variable() -> None:
    with process("serves", GRPC_PORT="fifty", DRAIN_TIMEOUT="-1") as child:
        code, _, err = ending(child)
    assert code == 1
    first, second = err.splitlines()
    assert first.startswith("__main__: cannot start: PARLEY_GRPC_PORT: Input should be a valid integer")
    assert second.startswith("__main__: cannot start: PARLEY_DRAIN_TIMEOUT: ")


@pytest.mark.slow
def test_a_bug_at_start_is_logged_with_its_traceback_and_1() -> None:
    with process("bug") as child:
        code, _, err = ending(child)
    assert code == 1
    line, last = err.splitlines()
    assert "Traceback" in json.loads(line)["exception"]
    assert last == "__main__: cannot start: KeyError"


@pytest.mark.slow
def test_an_end_that_hangs_is_cut_off_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    with process("hangs at the end", DRAIN_TIMEOUT="0") as child:
        first_line(child)
        child.terminate()
        code, _, err = ending(child)
    assert (code, err) == (1, "__main__: could not stop in time\n")


async def test_background_tasks_are_cancelled_and_awaited() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async with Background() as background:
        background.start("work", work())
        await asyncio.sleep(0)
    assert ended == [True]


async def test_a_task_that_returns_is_just_done() -> None:
    async with Background() as background:
        assert await background.start("sum", asyncio.sleep(0, 3)) == 3
        await asyncio.sleep(0.01)


async def test_a_task_that_raises_interrupts_its_owner() -> None:
    async def die() -> None:
        raise KeyError("x")

    async def own() -> None:
        async with Background() as background:
            background.start("feed", die())
            await asyncio.wait_for(asyncio.Event().wait(), 60)

    with capture_logs() as logs, pytest.raises(TaskDied, match="'feed' died of KeyError") as caught:
        await own()
    assert isinstance(caught.value.__cause__, KeyError)
    assert [(line["event"], line["task"]) for line in logs] == [("background_task_died", "feed")]
    assert_nothing_is_left_of_the_cancel()


async def test_a_task_that_is_cancelled_from_outside_interrupts_its_owner() -> None:
    async def own() -> None:
        async with Background() as background:
            background.start("feed", asyncio.Event().wait()).cancel()
            await asyncio.wait_for(asyncio.Event().wait(), 60)

    with capture_logs(), pytest.raises(TaskDied, match="'feed' was cancelled from outside"):
        await own()


async def test_a_death_that_the_owner_swallows_is_not_lost() -> None:
    async def die() -> None:
        raise KeyError("x")

    async def own() -> None:
        async with Background() as background:
            task = background.start("feed", die())
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
                await asyncio.sleep(5)

    with capture_logs(), pytest.raises(TaskDied):
        await own()
    await asyncio.sleep(0)
    assert_nothing_is_left_of_the_cancel()


async def test_the_owners_own_error_comes_first() -> None:
    async def own() -> None:
        async with Background() as background:
            background.start("feed", asyncio.Event().wait())
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await own()


async def test_a_cancel_of_the_owner_stays_a_cancel() -> None:
    async def owner() -> None:
        async with Background() as background:
            background.start("feed", asyncio.Event().wait())
            await asyncio.Event().wait()

    task = asyncio.ensure_future(owner())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nothing_starts_outside_the_block() -> None:
    background = Background()
    with pytest.raises(RuntimeError, match="not open"):
        background.start("feed", asyncio.sleep(0))
    async with background:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        background.start("feed", asyncio.sleep(0))


def assert_nothing_is_left_of_the_cancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
