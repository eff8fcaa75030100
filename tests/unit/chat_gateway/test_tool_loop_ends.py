"""How a turn with tools ends before its answer: unavailable servers, callers that leave, bounds, leases."""

import asyncio

import pytest

from chat_gateway.model.errors import TurnTimeout
from chat_gateway.model.tools import (
    CallFinished,
    ToolResult,
    ToolsUnavailable,
)
from chat_gateway.model.turn import Delta
from contract.enums import BusyPolicy, Role
from servicekit.errors import Code, ServiceError, Unavailable
from tests.doubles.chat_gateway.sessions import remote
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes, says
from tests.unit.chat_gateway.stepping_provider import SteppingProvider, calling, text
from tests.unit.chat_gateway.tool_world import ONE, hang, roles, world_of
from tests.unit.chat_gateway.world import asks


async def test_servers_that_are_unavailable_are_named_to_the_model_and_the_caller() -> None:
    gone = ToolsUnavailable("mail", "can't be reached")
    provider = SteppingProvider(text("ok"))
    world = world_of(provider, FakeToolboxes({"read": says("x")}, unavailable=(gone,)))
    outcome = await world.runner.run(asks(session_id="s"))
    assert outcome.unavailable == (gone,)
    note = provider.calls[0].messages[1]
    assert note.role is Role.SYSTEM
    assert "- mail: can't be reached" in note.content
    assert roles(world.sessions.turns["s"][0].messages) == ["user", "assistant"], "the note is not stored"


async def test_a_required_server_that_is_unavailable_fails_the_turn() -> None:
    boxes = FakeToolboxes({"read": says("x")}, list_errors=[Unavailable("mail")])
    world = world_of(SteppingProvider(text("ok")), boxes)
    with pytest.raises(Unavailable):
        await world.runner.run(asks())
    assert boxes.open_now == 0


async def test_a_caller_that_leaves_cancels_the_calls_and_they_end_first() -> None:
    ended = []

    async def stubborn(arguments: str) -> ToolResult:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)  # what a call needs to tell its server
            ended.append(arguments)
        raise AssertionError

    calls = calling(("c1", "read", '{"x":1}'), ("c2", "read", '{"x":2}'))
    world = world_of(SteppingProvider(calls), FakeToolboxes({"read": stubborn}), turn_timeout=60.0)
    turn = asyncio.create_task(world.runner.run(asks(session_id="s")))
    async with asyncio.timeout(60):
        while world.toolboxes.running < 2:
            await asyncio.sleep(0.01)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    assert turn.cancelled()
    assert len(ended) == 2
    assert (world.toolboxes.running, world.toolboxes.open_now) == (0, 0)
    await world.aborts.close(60)
    assert len(world.sessions.aborted) == 1


async def test_a_turn_at_its_bound_cancels_its_calls() -> None:
    world = world_of(SteppingProvider(ONE), FakeToolboxes({"read": hang}), turn_timeout=1.0)
    with pytest.raises(TurnTimeout):
        await world.runner.run(asks(session_id="s"))
    assert world.toolboxes.running == 0
    assert world.sessions.turns == {}


async def test_a_lost_lease_cancels_the_calls() -> None:
    world = world_of(SteppingProvider(ONE), FakeToolboxes({"read": hang}), turn_timeout=30.0)
    world.sessions.renew_errors = [remote("LEASE_LOST", Code.ABORTED)]
    with pytest.raises(ServiceError) as caught:
        await world.runner.run(asks(session_id="s"))
    assert caught.value.reason == "TURN_HANDED_OVER", "another gateway has it"
    assert not world.sessions.aborted
    assert world.toolboxes.running == 0


async def test_another_turn_may_interrupt_one_that_waits_for_a_tool() -> None:
    provider = SteppingProvider(ONE, text("second"))
    world = world_of(provider, FakeToolboxes({"read": hang}), turn_timeout=30.0)
    first = asyncio.create_task(world.runner.run(asks(session_id="s")))
    async with asyncio.timeout(60):
        while not world.toolboxes.running:
            await asyncio.sleep(0.01)
    outcome = await world.runner.run(asks(session_id="s", busy=BusyPolicy.INTERRUPT))
    [failed] = await asyncio.gather(first, return_exceptions=True)
    assert isinstance(failed, ServiceError)
    assert failed.reason == "TURN_INTERRUPTED"
    assert outcome.message.content == "second"
    assert world.toolboxes.running == 0
    assert len(world.sessions.turns["s"]) == 1


async def test_a_reader_that_fails_in_mid_call_ends_the_other_calls() -> None:
    calls = calling(("c1", "read", '{"x":1}'), ("c2", "slow", "{}"))
    world = world_of(SteppingProvider(calls), FakeToolboxes({"read": says("x"), "slow": hang}), turn_timeout=30.0)

    async def on_delta(delta: Delta) -> None:
        if isinstance(delta.activity, CallFinished):
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await world.runner.run(asks(), None, on_delta)
    assert world.toolboxes.running == 0
