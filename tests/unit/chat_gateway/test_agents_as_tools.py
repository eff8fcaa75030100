"""Agents that call agents: sessions of their own, bounded depth, and no wait for what the turns above hold."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from chat_gateway.model.errors import AgentDepthExceeded
from chat_gateway.model.tools import AgentCall, ServerTools, ToolOutcome, ToolPolicy
from chat_gateway.model.turn import Message, TurnRequest, Usage
from chat_gateway.providers.provider import ModelCall
from chat_gateway.scheduler import TurnLimits
from chat_gateway.turn_tools import MAX_AGENT_DEPTH, child_session_id
from contract.enums import Role
from servicekit.errors import ServiceError
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes, says
from tests.unit.chat_gateway.several_agents import Models, agent, make_world
from tests.unit.chat_gateway.stepping_provider import calling, text
from tests.unit.chat_gateway.world import asks

HELPER = AgentCall("helper", "", "Knows much.")


def asks_helper(call: ModelCall) -> Message:
    if call.messages[-1].role is Role.TOOL:
        return text(f"helper says: {call.messages[-1].content}")
    return calling(("c1", "helper", '{"message": "what is it?"}'))


async def test_an_agent_answers_in_a_session_of_its_own_that_hangs_on_the_callers() -> None:
    models = Models(boss=asks_helper, helper=lambda call: text(f"{len(call.messages)} messages"))
    world = make_world(models, agent("boss", HELPER), agent("helper", window_messages=20))
    outcome = await world.runner.run(asks(agent_id="boss", session_id="s", user_id="u"))
    assert outcome.message.content == "helper says: 2 messages"
    assert outcome.usage == Usage(30, 3), "the tokens of the called agent's model are among them"
    await world.runner.run(asks(agent_id="boss", session_id="s", user_id="u"))
    assert [turn.messages[0].content for turn in world.sessions.turns["s:helper"]] == ["what is it?"] * 2
    assert models.calls[-1][1].messages[-1].content == "4 messages", "it remembers"
    assert len(world.sessions.turns["s"]) == 2
    assert world.called("agent", "helper", "ok") == 2


async def test_a_stateless_turn_calls_agents_stateless() -> None:
    models = Models(boss=asks_helper, helper=lambda call: text("yes"))
    world = make_world(models, agent("boss", HELPER), agent("helper"))
    outcome = await world.runner.run(asks(agent_id="boss", stateless=True))
    assert outcome.message.content == "helper says: yes"
    assert world.sessions.turns == {}


async def test_a_repeated_call_is_answered_by_the_turn_that_is_stored() -> None:
    models = Models(boss=asks_helper, helper=lambda call: text("yes"))
    world = make_world(models, agent("boss", HELPER), agent("helper"))
    await world.runner.run(asks(agent_id="boss", session_id="s"))
    [turn] = world.sessions.turns["s"]
    repeat = TurnRequest("helper", (Message(Role.USER, "what is it?"),), session_id="s:helper")
    again = await world.runner.run(replace(repeat, request_id=f"{turn.id}:c1"))
    assert again.replayed
    assert len(world.sessions.turns["s:helper"]) == 1


async def test_what_a_called_agent_fails_with_is_a_result() -> None:
    def fails(call: ModelCall) -> Message:
        raise ServiceError("the model is gone")

    models = Models(boss=asks_helper, helper=fails)
    world = make_world(models, agent("boss", HELPER), agent("helper"))
    outcome = await world.runner.run(asks(agent_id="boss", session_id="s"))
    assert outcome.message.content == "helper says: The agent failed (INTERNAL): the model is gone"
    assert world.called("agent", "helper", "error") == 1
    missing = make_world(Models(boss=asks_helper), agent("boss", HELPER))
    outcome = await missing.runner.run(asks(agent_id="boss"))
    assert outcome.message.content == (
        "helper says: Not run: the tool 'helper' is unavailable: there is no agent 'helper' any more."
    )
    assert [run.outcome for run in outcome.runs] == [ToolOutcome.UNAVAILABLE]


async def test_agents_that_call_each_other_in_a_circle_end_at_the_depth() -> None:
    def asks_other(name: str) -> Callable[[ModelCall], Message]:
        return lambda call: calling(("c1", name, '{"message": "you do it"}'))

    models = Models(a=asks_other("b"), b=asks_other("a"))
    world = make_world(
        models, agent("a", AgentCall("b", "", "b"), max_concurrent_turns=1), agent("b", AgentCall("a", "", "a"))
    )
    with pytest.raises(AgentDepthExceeded):
        await world.runner.run(asks(agent_id="a", session_id="s"))
    assert len(models.calls) == MAX_AGENT_DEPTH + 1
    assert world.sessions.turns == {}


async def test_agents_that_are_called_never_wait_for_a_slot() -> None:
    models = Models(boss=asks_helper, helper=lambda call: text("yes"), deeper=asks_helper)
    limits = TurnLimits(running=1, queued=64, agent_running=1, agent_queued=64)
    world = make_world(
        models,
        agent("boss", AgentCall("deeper", "helper", "d"), max_concurrent_turns=1),
        agent("deeper", HELPER),
        agent("helper"),
        limits=limits,
        turn_timeout=60.0,
    )
    turns = [world.runner.run(asks(agent_id="boss", session_id=f"s{n}")) for n in range(8)]
    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(*turns)
    assert {one.message.content for one in outcomes} == {"helper says: helper says: yes"}
    assert world.scheduler.load.running == 0


async def test_a_called_agent_counts_in_its_agents_limits_only_and_in_none_that_is_held_above() -> None:
    models = Models(boss=asks_helper, helper=lambda call: text("yes"))
    world = make_world(models, agent("boss", HELPER, max_concurrent_turns=2), agent("helper", max_concurrent_turns=3))
    await world.runner.run(asks(agent_id="boss", session_id="s"))
    assert [[limit.subject for limit in limits] for limits in world.sessions.limits] == [
        ["agent:uid-boss"],
        ["agent:uid-helper"],
    ]
    again = Models(boss=lambda call: calling(("c", "boss", '{"message": "x"}')))
    circle = make_world(again, agent("boss", AgentCall("boss", "", "me"), max_concurrent_turns=1))
    with pytest.raises(AgentDepthExceeded):
        await circle.runner.run(asks(agent_id="boss", session_id="s"))
    assert [len(limits) for limits in circle.sessions.limits] == [1] + [0] * MAX_AGENT_DEPTH


async def test_a_caller_that_leaves_ends_the_agents_below_it() -> None:
    running = asyncio.Event()

    async def helper(call: ModelCall) -> Message:
        running.set()
        await asyncio.sleep(60)
        raise AssertionError

    world = make_world(Models(boss=asks_helper, helper=helper), agent("boss", HELPER), agent("helper"))
    turn = asyncio.create_task(world.runner.run(asks(agent_id="boss", session_id="s")))
    async with asyncio.timeout(60):
        await running.wait()
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    await world.aborts.close(5)
    assert world.called("agent", "helper", "unknown") == 1
    assert len(world.sessions.aborted) == 2
    assert world.sessions.turns == {}


async def test_agents_and_tool_servers_stand_side_by_side() -> None:
    models = Models(boss=asks_helper, helper=lambda call: text("yes"))
    boxes = FakeToolboxes({"read": says("x"), "helper": says("an impostor")})
    config = agent("boss", ServerTools(tool_server="files"), HELPER, tool_policy=ToolPolicy())
    world = make_world(models, config, agent("helper"), toolboxes=boxes)
    outcome = await world.runner.run(asks(agent_id="boss"))
    assert outcome.message.content == "helper says: yes"
    assert [tool.name for tool in models.calls[0][1].tools] == ["helper", "read"]
    [unavailable] = outcome.unavailable
    assert unavailable.server == "files"


@pytest.mark.parametrize("arguments", ['{"message": 1}', '{"text": "hi"}', "{}"])
async def test_arguments_that_are_none_are_a_result(arguments: str) -> None:
    def boss(call: ModelCall) -> Message:
        last = call.messages[-1]
        return text(last.content) if last.role is Role.TOOL else calling(("c1", "helper", arguments))

    world = make_world(Models(boss=boss), agent("boss", HELPER), agent("helper"))
    outcome = await world.runner.run(asks(agent_id="boss"))
    assert outcome.message.content.startswith("The arguments are not valid: ")


def test_the_session_of_a_called_agent_has_an_id_that_fits() -> None:
    assert child_session_id("s", "helper") == "s:helper"
    long = child_session_id("s" * 128, "helper")
    assert len(long) <= 128
    assert long != child_session_id("s" * 127 + "t", "helper")
