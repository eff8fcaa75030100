"""The scheduler: caps, order, refusals, and nothing left behind."""

import asyncio
from contextlib import AsyncExitStack, ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.errors import TurnQueueFull
from chat_gateway.scheduler import Scheduler, TurnLimits
from servicekit.errors import Draining
from tests.unit.chat_gateway.world import make_config

A = make_config(uid="a")
B = make_config(uid="b")


async def hold(scheduler: Scheduler, config: AgentConfig, order: list[str], name: str, until: asyncio.Event) -> None:
    with scheduler.entered(config) as admission:
        async with scheduler.slot(admission):
            order.append(name)
            await until.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_turns_beyond_the_cap_wait_in_order() -> None:
    scheduler = Scheduler(TurnLimits(running=1, queued=10))
    order: list[str] = []
    events = {name: asyncio.Event() for name in "123"}
    tasks = []
    for name in "123":
        tasks.append(asyncio.create_task(hold(scheduler, A, order, name, events[name])))
        await settle()
    assert order == ["1"]
    assert (scheduler.load.running, scheduler.load.queued) == (1, 2)
    for name in "123":
        events[name].set()
        await settle()
    assert order == ["1", "2", "3"]
    await asyncio.gather(*tasks)
    assert (scheduler.load.running, scheduler.load.queued) == (0, 0)


async def test_an_agent_at_its_cap_does_not_hold_up_another() -> None:
    scheduler = Scheduler(TurnLimits(running=10, agent_running=1))
    order: list[str] = []
    done = asyncio.Event()
    tasks = [asyncio.create_task(hold(scheduler, c, order, n, done)) for c, n in ((A, "a1"), (A, "a2"), (B, "b1"))]
    await settle()
    assert order == ["a1", "b1"]
    done.set()
    await asyncio.gather(*tasks)
    assert order == ["a1", "b1", "a2"]


async def test_an_agents_own_limit_counts() -> None:
    scheduler = Scheduler(TurnLimits(running=10))
    one_at_a_time = make_config(uid="a", max_concurrent_turns=1)
    order: list[str] = []
    done = asyncio.Event()
    tasks = [asyncio.create_task(hold(scheduler, one_at_a_time, order, n, done)) for n in "12"]
    await settle()
    assert order == ["1"]
    done.set()
    await asyncio.gather(*tasks)


async def test_beyond_the_queue_a_turn_is_refused_at_once_with_a_time_to_retry() -> None:
    scheduler = Scheduler(TurnLimits(running=1, queued=1))
    with ExitStack() as stack:
        stack.enter_context(scheduler.entered(A))
        stack.enter_context(scheduler.entered(B))
        with pytest.raises(TurnQueueFull) as caught, scheduler.entered(A):
            pass
        assert caught.value.metadata == {"scope": "gateway", "limit": "1"}
        assert caught.value.retry_after == 1.0
    with scheduler.entered(A):
        pass


async def test_one_agent_can_not_fill_the_whole_queue() -> None:
    scheduler = Scheduler(TurnLimits(running=10, queued=10, agent_running=1, agent_queued=1))
    with scheduler.entered(A), scheduler.entered(A):
        with pytest.raises(TurnQueueFull) as caught, scheduler.entered(A):
            pass
        assert caught.value.metadata["scope"] == "agent"
        with scheduler.entered(B):
            pass


async def test_a_waiter_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    scheduler = Scheduler(TurnLimits(running=1, queued=10))
    order: list[str] = []
    first, rest = asyncio.Event(), asyncio.Event()
    rest.set()
    one = asyncio.create_task(hold(scheduler, A, order, "1", first))
    await settle()
    two = asyncio.create_task(hold(scheduler, A, order, "2", rest))
    three = asyncio.create_task(hold(scheduler, A, order, "3", rest))
    await settle()
    two.cancel()
    first.set()
    await asyncio.gather(one, three)
    assert order == ["1", "3"]
    assert two.cancelled()
    assert (scheduler.load.running, scheduler.load.queued) == (0, 0)


async def test_a_slot_given_to_a_waiter_that_was_just_cancelled_is_given_on() -> None:
    scheduler = Scheduler(TurnLimits(running=1, queued=10))
    order: list[str] = []
    rest = asyncio.Event()
    rest.set()
    async with AsyncExitStack() as stack:
        admission = stack.enter_context(scheduler.entered(A))
        await stack.enter_async_context(scheduler.slot(admission))
        two = asyncio.create_task(hold(scheduler, A, order, "2", rest))
        three = asyncio.create_task(hold(scheduler, A, order, "3", rest))
        await settle()
        await stack.aclose()  # grants to the second, which has not run yet
        two.cancel()
    await asyncio.wait([two, three], timeout=60)
    assert order == ["3"]
    assert scheduler.load.running == 0


async def test_draining_refuses_new_turns_and_waits_for_the_rest() -> None:
    scheduler = Scheduler(TurnLimits())
    with scheduler.entered(A):
        assert not await scheduler.drain(0.01)
        with pytest.raises(Draining), scheduler.entered(B):
            pass
    assert await scheduler.drain(0.01)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_caps_hold_and_nobody_is_forgotten_whatever_the_order(data: st.DataObject) -> None:
    asyncio.run(_random_turns(data))


async def _random_turns(data: st.DataObject) -> None:
    limits = TurnLimits(running=data.draw(st.integers(1, 3)), queued=100, agent_running=data.draw(st.integers(1, 2)))
    scheduler = Scheduler(limits)
    running: dict[str, int] = {"a": 0, "b": 0}

    async def turn(config: AgentConfig, steps: int) -> None:
        with scheduler.entered(config) as admission:
            async with scheduler.slot(admission):
                running[config.uid] += 1
                assert sum(running.values()) <= limits.running
                assert running[config.uid] <= limits.agent_running
                try:
                    for _ in range(steps):
                        await asyncio.sleep(0)
                finally:
                    running[config.uid] -= 1

    tasks = []
    for _ in range(data.draw(st.integers(1, 15))):
        tasks.append(asyncio.create_task(turn(data.draw(st.sampled_from([A, B])), data.draw(st.integers(0, 4)))))
        for _ in range(data.draw(st.integers(0, 2))):
            await asyncio.sleep(0)
        if data.draw(st.booleans()):
            data.draw(st.sampled_from(tasks)).cancel()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    assert all(r is None or isinstance(r, asyncio.CancelledError) for r in results)
    assert (scheduler.load.running, scheduler.load.queued) == (0, 0)
