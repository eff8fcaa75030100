"""Turns whose callers leave: cancelled, or finished unheard, as they asked."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from chat_gateway.finishing import FinishingTurns
from chat_gateway.model.errors import CommitCutShort, CommitUnresolved, TurnCutShort, TurnHandedOver
from chat_gateway.model.turn import Delta, OnDisconnect
from servicekit.errors import Draining, ServiceError
from tests.unit.chat_gateway.world import FakeProvider, World, asks

FINISH = OnDisconnect.FINISH


async def start(
    world: World, turns: FinishingTurns, on_disconnect: OnDisconnect, on_delta: object = None
) -> asyncio.Task:  # type: ignore[type-arg]
    request = asks(session_id="s", on_disconnect=on_disconnect)
    task = asyncio.create_task(turns.run(request, None, on_delta))  # type: ignore[arg-type]
    while not world.provider.calls:
        await asyncio.sleep(0)
    return task


async def gone(task: asyncio.Task) -> None:  # type: ignore[type-arg]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_turn_that_is_to_be_finished_goes_on_without_its_caller() -> None:
    released = asyncio.Event()

    async def wait() -> None:
        await released.wait()

    world = World(provider=FakeProvider(before=wait))
    turns = FinishingTurns(world.runner)
    await gone(await start(world, turns, FINISH))
    assert world.scheduler.load.running == 1
    assert not await world.scheduler.drain(0.01)
    released.set()
    assert await world.scheduler.drain(1)
    assert len(world.sessions.turns["s"]) == 1
    assert world.sessions.aborted == []


async def test_otherwise_it_is_cancelled() -> None:
    async def forever() -> None:
        await asyncio.sleep(60)

    world = World(provider=FakeProvider(before=forever))
    await gone(await start(world, FinishingTurns(world.runner), OnDisconnect.CANCEL))
    assert world.provider.cancelled == 1
    assert world.sessions.turns == {}


async def test_an_event_that_waits_for_a_caller_who_left_does_not_hold_up_the_turn() -> None:
    seen: list[Delta] = []

    async def stuck(delta: Delta) -> None:
        seen.append(delta)
        await asyncio.sleep(60)

    world = World(provider=FakeProvider("a", "b"))
    turns = FinishingTurns(world.runner)
    task = await start(world, turns, FINISH, stuck)
    while not seen:
        await asyncio.sleep(0)
    await gone(task)
    assert await world.scheduler.drain(1)
    assert seen == [Delta("a")]
    assert world.sessions.turns["s"][0].messages[-1].content == "ab"


async def test_a_caller_that_takes_no_event_has_left() -> None:
    async def broken(delta: Delta) -> None:
        raise ConnectionResetError

    world = World(provider=FakeProvider("a", "b"))
    outcome = await FinishingTurns(world.runner).run(asks(on_disconnect=FINISH), None, broken)
    assert outcome.message.content == "ab"


async def test_while_the_caller_is_there_it_hears_everything() -> None:
    heard: list[str] = []

    async def hear(delta: Delta) -> None:
        heard.append(delta.content)

    world = World(provider=FakeProvider("a", "b"))
    outcome = await FinishingTurns(world.runner).run(asks(on_disconnect=FINISH), None, hear)
    assert heard == ["a", "b"]
    assert outcome.turn_number == 1


async def test_closing_ends_what_still_goes_on() -> None:
    async def forever() -> None:
        await asyncio.sleep(60)

    world = World(provider=FakeProvider(before=forever))
    turns = FinishingTurns(world.runner)
    await gone(await start(world, turns, FINISH))
    await turns.close()
    assert world.scheduler.load.running == 0


@pytest.mark.parametrize("on_disconnect", list(OnDisconnect))
@pytest.mark.parametrize(
    ("cut", "error"),
    [
        (asyncio.CancelledError, Draining),
        (CommitCutShort, CommitUnresolved),
        (partial(TurnCutShort, TurnHandedOver("t", "s")), TurnHandedOver),
    ],
)
async def test_a_stop_tells_every_caller_what_became_of_its_turn(
    on_disconnect: OnDisconnect, cut: Callable[[], asyncio.CancelledError], error: type[ServiceError]
) -> None:
    async def ends_with() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise cut() from None

    world = World(provider=FakeProvider(before=ends_with))
    turns = FinishingTurns(world.runner)
    task = await start(world, turns, on_disconnect)
    turns.stop()
    with pytest.raises(error):
        await task
    assert task.cancelling() == 0, "whoever serves the caller goes on"
    await turns.close()


async def test_a_caller_that_leaves_as_the_process_stops_is_gone() -> None:
    async def forever() -> None:
        await asyncio.sleep(60)

    world = World(provider=FakeProvider(before=forever))
    turns = FinishingTurns(world.runner)
    task = await start(world, turns, OnDisconnect.CANCEL)
    turns.stop()
    await gone(task)
