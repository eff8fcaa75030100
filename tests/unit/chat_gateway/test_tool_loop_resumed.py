"""The tool loop from a given state, and what its sink learns: what a turn's journal is made of."""

from typing import Any

import pytest

from chat_gateway.agents.agent import TurnContext
from chat_gateway.agents.prompt import prompt_messages
from chat_gateway.agents.tool_loop import run_tool_loop
from chat_gateway.agents.toolbox import NO_STEPS, Steps, ToolCaller
from chat_gateway.model.errors import ToolCallsRepeated
from chat_gateway.model.journal import StepCalled
from chat_gateway.model.tools import ServerTools, ToolPolicy
from chat_gateway.model.turn import Answer, FinishReason, Message, Sampling, Usage
from chat_gateway.providers.provider import ModelCall
from contract.enums import Role
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes, says
from tests.unit.chat_gateway.stepping_provider import SteppingProvider, calling, text
from tests.unit.chat_gateway.world import asks, make_config

CONFIG = make_config(tools=(ServerTools(tool_server="files"),), tool_policy=ToolPolicy(tool_choice="required"))
TWO = calling(("c1", "read", '{"x": 1}'), ("c2", "read", '{"x": 2}'), content="Wait.")


class Sink:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def call_started(self, event: Any) -> None:
        self.seen.append(("started", event.step, event.call_id))

    async def call_finished(self, event: Any, result: Message, *, ends_step: bool) -> None:
        self.seen.append(("finished", event.step, event.call_id, result.content))

    async def step_called(self, event: StepCalled) -> None:
        self.seen.append(("called", event.step, len(event.message.tool_calls), event.usage.prompt_tokens))

    async def step_finished(self, steps: Steps) -> None:
        self.seen.append(("step", steps.count, len(steps.messages)))


async def run(
    provider: SteppingProvider, boxes: FakeToolboxes, *, steps: Steps = NO_STEPS, sink: Sink | None = None
) -> Answer:
    async with boxes.open((), CONFIG.tool_policy, ToolCaller("default", "", "s", "t")) as box:
        context = TurnContext(asks(), (), {}, box, steps=steps, sink=sink)
        return await run_tool_loop(
            CONFIG,
            provider,
            context,
            None,
            call=ModelCall("m", (), Sampling()),
            prompt=lambda seen: prompt_messages("", seen.window, seen.request.messages),
        )


async def test_a_sink_learns_everything_before_the_next_thing_follows() -> None:
    sink = Sink()
    boxes = FakeToolboxes({"read": says("file")})
    await run(SteppingProvider(calling(("c1", "read", "{}")), text("done")), boxes, sink=sink)
    assert sink.seen == [
        ("called", 1, 1, 10),
        ("started", 1, "c1"),
        ("finished", 1, "c1", "file"),
        ("step", 1, 2),
    ]


async def test_a_loop_goes_on_from_finished_steps() -> None:
    done = Steps((TWO, *(Message(Role.TOOL, "file", tool_call_id=one) for one in ("c1", "c2"))), 1, Usage(7, 1))
    provider, boxes = SteppingProvider(text("Red.")), FakeToolboxes({"read": says("x")})
    answer = await run(provider, boxes, steps=done)
    assert boxes.calls == []
    assert [one.role.value for one in provider.calls[0].messages] == ["user", "assistant", "tool", "tool"]
    assert provider.calls[0].tool_choice == "", "the first step was made"
    assert answer.messages == (*done.messages, text("Red."))
    assert answer.usage == Usage(17, 2)


async def test_calls_of_the_last_step_that_have_no_result_are_run_first() -> None:
    half = Steps((TWO, Message(Role.TOOL, "file", tool_call_id="c2")), 1, Usage(7, 1))
    boxes = FakeToolboxes({"read": says("x")})
    answer = await run(SteppingProvider(text("Red.")), boxes, steps=half)
    assert [call_id for _, _, call_id in boxes.calls] == ["c1"]
    assert [one.tool_call_id for one in answer.messages if one.role is Role.TOOL] == ["c2", "c1"]


async def test_repeats_are_counted_over_what_was_done_before() -> None:
    again = calling(("c", "read", '{"x": 1}'))
    result = Message(Role.TOOL, "file", tool_call_id="c")
    with pytest.raises(ToolCallsRepeated):
        await run(
            SteppingProvider(again),
            FakeToolboxes({"read": says("x")}),
            steps=Steps((again, result, again, result), 2, Usage()),
        )


async def test_a_step_that_ended_its_turn_ends_it_again() -> None:
    mixed = calling(("c1", "read", "{}"), ("a1", "delete", "{}"))
    boxes = FakeToolboxes({"read": says("x"), "delete": says("gone")}, needs_approval={"delete"})
    provider = SteppingProvider(text("never asked"))
    answer = await run(provider, boxes, steps=Steps((mixed,), 1, Usage(7, 1)))
    assert provider.calls == []
    assert [call_id for _, _, call_id in boxes.calls] == ["c1"]
    assert (answer.finish_reason, answer.awaiting) == (FinishReason.REQUIRES_APPROVAL, ("a1",))


async def test_a_call_that_may_have_been_made_is_not_made_again_and_the_model_is_told() -> None:
    half = Steps((TWO,), 1, Usage(7, 1), unrecorded=frozenset({"c1"}))
    boxes = FakeToolboxes({"read": says("x")})
    answer = await run(SteppingProvider(text("Red.")), boxes, steps=half)
    assert [call_id for _, _, call_id in boxes.calls] == ["c2"]
    results = {one.tool_call_id: one.content for one in answer.messages if one.role is Role.TOOL}
    assert "unknown" in results["c1"]
    assert results["c2"] == "x"
