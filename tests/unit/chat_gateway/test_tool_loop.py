"""The tool loop through whole turns: every bound of it and every fault of a tool, on doubles."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from chat_gateway.agents.tool_loop import MAX_TURN_BYTES, cut
from chat_gateway.model.errors import ToolCallsRepeated
from chat_gateway.model.tools import (
    CallFinished,
    CallStarted,
    ClientTool,
    StepFinished,
    ToolOutcome,
    ToolResult,
)
from chat_gateway.model.turn import FinishReason, Message, Tool, Usage
from contract.enums import Role
from servicekit.errors import InvalidArgument
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes, says
from tests.unit.chat_gateway.stepping_provider import SteppingProvider, calling, text
from tests.unit.chat_gateway.tool_world import ONE, TOOLS, hang, roles, streamed, world_of
from tests.unit.chat_gateway.world import asks


async def test_calls_run_and_the_model_is_asked_again_until_it_answers() -> None:
    provider = SteppingProvider(
        calling(("c1", "read", '{"x": 1}'), ("c2", "read", '{"x": 2}')), calling(("c3", "read", "{}")), text("done")
    )

    async def read(arguments: str) -> ToolResult:
        # The first call ends last: results are in the order of the calls all the same.
        await asyncio.sleep(0.02 if json.loads(arguments).get("x") == 1 else 0)
        return ToolResult(f"got {arguments}", usage=Usage(100, 0))

    world = world_of(provider, FakeToolboxes({"read": read}))
    outcome = await world.runner.run(asks(session_id="s", user_id="u"))
    assert outcome.message.content == "done"
    assert outcome.finish_reason is FinishReason.STOP
    assert outcome.usage == Usage(330, 6), "of all steps, and what the tools' own models took"
    assert outcome.details.system_fingerprint == "step-3"
    [stored] = world.sessions.turns["s"]
    assert roles(stored.messages) == ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"]
    assert [one.content for one in stored.messages if one.role is Role.TOOL] == [
        'got {"x": 1}',
        'got {"x": 2}',
        "got {}",
    ]
    assert roles(provider.calls[2].messages) == ["system", *roles(stored.messages[:-1])]
    assert [tool.name for tool in provider.calls[0].tools] == ["read"]
    [caller] = world.toolboxes.callers
    assert (caller.project, caller.user_id, caller.session_id, caller.turn_id) == ("default", "u", "s", stored.id)
    assert world.toolboxes.open_now == 0


async def test_no_more_calls_run_at_a_time_than_may() -> None:
    calls = [(f"c{n}", "read", f'{{"x": {n}}}') for n in range(9)]

    async def slow(arguments: str) -> ToolResult:
        await asyncio.sleep(0.01)
        return ToolResult("ok")

    boxes = FakeToolboxes({"read": slow})
    await world_of(SteppingProvider(calling(*calls), text("done")), boxes, config={"max_parallel_calls": 2}).runner.run(
        asks()
    )
    assert boxes.most_running == 2
    assert len(boxes.calls) == 9


async def test_a_plain_turn_of_an_agent_without_tools_opens_no_toolbox() -> None:
    world = world_of(SteppingProvider(text("hi")), FakeToolboxes({"read": says("x")}), tools=())
    await world.runner.run(asks())
    assert world.toolboxes.callers == []


async def test_a_step_with_calls_of_both_ends_with_the_callers_and_all_is_stored_paired() -> None:
    both = calling(("g1", "read", "{}"), ("k1", "locate", '{"a":1}'), content="Let me see.")
    provider = SteppingProvider(both, text("You are at home."))
    world = world_of(provider, FakeToolboxes({"read": says("file")}), tools=(*TOOLS, ClientTool("locate")))
    outcome, deltas = await streamed(world, asks(session_id="s"))
    assert outcome.finish_reason is FinishReason.TOOL_CALLS
    assert [call.id for call in outcome.message.tool_calls] == ["k1"], "the caller sees its own calls only"
    shown = [call for delta in deltas for call in delta.tool_calls]
    assert {call.index for call in shown} == {0}
    assert "".join(call.arguments for call in shown) == '{"a":1}'
    [stored] = world.sessions.turns["s"]
    assert roles(stored.messages) == ["user", "assistant", "tool"]
    assert [call.id for call in stored.messages[1].tool_calls] == ["g1", "k1"]

    results = (Message(Role.TOOL, "home", tool_call_id="k1"),)
    again = await world.runner.run(replace(asks(session_id="s"), messages=results))
    assert again.message.content == "You are at home."
    sent = provider.calls[1].messages
    assert roles(sent) == ["system", "user", "assistant", "tool", "tool"]
    assert [one.tool_call_id for one in sent[3:]] == ["g1", "k1"]


async def test_tools_of_the_request_stand_beside_the_agents_own() -> None:
    provider = SteppingProvider(text("ok"))
    world = world_of(provider, FakeToolboxes({"read": says("x")}), tools=(*TOOLS, ClientTool("locate", "old")))
    await world.runner.run(asks(tools=(Tool("locate", "new"), Tool("look"))))
    assert [(tool.name, tool.description) for tool in provider.calls[0].tools] == [
        ("read", "Does read."),
        ("locate", "new"),
        ("look", ""),
    ]
    with pytest.raises(InvalidArgument, match=r"tools\[0\].name: is the name of one of the agent's own"):
        await world.runner.run(asks(tools=(Tool("read"),)))


async def test_the_choice_of_a_tool_is_for_the_first_step() -> None:
    provider = SteppingProvider(ONE, text("ok"))
    world = world_of(provider, FakeToolboxes({"read": says("x")}), config={"tool_choice": "required"})
    await world.runner.run(asks())
    assert [call.tool_choice for call in provider.calls] == ["required", ""]
    provider.calls.clear()
    await world.runner.run(asks(tool_choice="read"))
    assert [call.tool_choice for call in provider.calls] == ["read", ""]
    with pytest.raises(InvalidArgument, match="tool_choice"):
        await world.runner.run(asks(tool_choice="nothing"))


async def test_no_other_tools_than_those_allowed_are_offered_or_run() -> None:
    calls_both = calling(("r1", "read", "{}"), ("w1", "write", "{}"))
    provider = SteppingProvider(calls_both, text("ok"))
    toolboxes = FakeToolboxes({"read": says("x"), "write": says("y")})
    world = world_of(provider, toolboxes, tools=(*TOOLS, ClientTool("locate", "old")))
    await world.runner.run(asks(allowed_tools=frozenset({"read", "locate"}), tool_choice="required"))
    assert [[tool.name for tool in call.tools] for call in provider.calls] == [["read", "locate"]] * 2
    assert [call.tool_choice for call in provider.calls] == ["required", ""]
    assert [name for name, _, _ in toolboxes.calls] == ["read"]
    with pytest.raises(InvalidArgument, match="tool_choice: allows tools that are not there: nothing"):
        await world.runner.run(asks(allowed_tools=frozenset({"read", "nothing"}), tool_choice="auto"))


async def test_whether_calls_may_be_parallel_is_the_policys_unless_the_request_says() -> None:
    provider = SteppingProvider(text("ok"))
    world = world_of(provider, FakeToolboxes({"read": says("x")}), config={"parallel_tool_calls": False})
    await world.runner.run(asks())
    await world.runner.run(asks(extra={"parallel_tool_calls": b"true"}))
    assert [call.parallel_tool_calls for call in provider.calls] == [False, None]


async def test_the_last_step_is_offered_no_tools() -> None:
    numbered = [calling((f"c{n}", "read", f'{{"x": {n}}}')) for n in range(3)]
    provider = SteppingProvider(*numbered, text("so far"))
    world = world_of(provider, FakeToolboxes({"read": says("x")}), config={"max_steps": 4})
    outcome = await world.runner.run(asks())
    assert [len(call.tools) for call in provider.calls] == [1, 1, 1, 0]
    assert (outcome.message.content, outcome.finish_reason) == ("so far", FinishReason.STOP)


async def test_a_model_that_calls_tools_that_it_was_not_offered_has_not_finished() -> None:
    provider = SteppingProvider(calling(("c1", "read", '{"x": 1}')), calling(("c2", "read", "{}"), content="hm"))
    world = world_of(provider, FakeToolboxes({"read": says("x")}), config={"max_steps": 2})
    outcome = await world.runner.run(asks(session_id="s"))
    assert (outcome.message.content, outcome.finish_reason) == ("hm", FinishReason.LENGTH)
    assert not outcome.message.tool_calls
    assert len(world.toolboxes.calls) == 1


async def test_a_call_that_was_cut_by_the_token_limit_is_not_made() -> None:
    provider = SteppingProvider(calling(("c1", "read", '{"x": '), content="I"), finish_reason=FinishReason.LENGTH)
    world = world_of(provider, FakeToolboxes({"read": says("x")}))
    outcome = await world.runner.run(asks())
    assert (outcome.finish_reason, outcome.message.tool_calls) == (FinishReason.LENGTH, ())
    assert world.toolboxes.calls == []


@pytest.mark.parametrize("ids", [("c1", "c2", "c3"), ("same", "same", "same")])
async def test_the_same_call_three_times_running_ends_the_turn(ids: tuple[str, ...]) -> None:
    script = [
        calling((call_id, "read", arguments))
        for call_id, arguments in zip(ids, ('{"x":1,"y":2}', '{"y": 2, "x": 1}', '{"x":1.0,"y":2}'), strict=True)
    ]
    world = world_of(SteppingProvider(*script), FakeToolboxes({"read": says("x")}))
    with pytest.raises(ToolCallsRepeated):
        await world.runner.run(asks(session_id="s"))
    assert len(world.toolboxes.calls) == 2
    assert world.sessions.turns == {}


async def test_the_same_call_again_after_another_one_is_no_repeat() -> None:
    script = [calling((f"c{n}", "read", f'{{"x": {n % 2}}}')) for n in range(6)]
    world = world_of(SteppingProvider(*script, text("ok")), FakeToolboxes({"read": says("x")}))
    assert (await world.runner.run(asks())).message.content == "ok"


@pytest.mark.parametrize(
    ("call", "says_"),
    [
        (("c1", "unknown", "{}"), "There is no tool 'unknown'. The tools are: read"),
        (("c1", "read", "{"), "The arguments are not valid: they are not JSON"),
        (("c1", "read", "[1]"), "The arguments are not valid: they are no JSON object"),
        (("c1", "read", ""), "file"),
    ],
)
async def test_what_is_wrong_with_a_call_is_a_result_for_the_model(call: tuple[str, str, str], says_: str) -> None:
    provider = SteppingProvider(calling(call), text("ok"))
    world = world_of(provider, FakeToolboxes({"read": says("file")}))
    assert (await world.runner.run(asks())).message.content == "ok"
    assert provider.calls[1].messages[-1].content.startswith(says_)
    assert all(arguments == "{}" for _, arguments, _ in world.toolboxes.calls)


async def test_a_tools_error_is_a_result_for_the_model() -> None:
    provider = SteppingProvider(ONE, text("sorry"))
    world = world_of(provider, FakeToolboxes({"read": says("no such file", ToolOutcome.ERROR)}))
    outcome, deltas = await streamed(world, asks())
    assert outcome.message.content == "sorry"
    [ended] = [one.activity for one in deltas if isinstance(one.activity, CallFinished)]
    assert ended.outcome is ToolOutcome.ERROR


async def test_a_call_that_hangs_is_cut_at_its_bound() -> None:
    provider = SteppingProvider(ONE, text("ok"))
    world = world_of(provider, FakeToolboxes({"read": hang}), config={"call_timeout": 0.05}, turn_timeout=30.0)
    await world.runner.run(asks())
    assert provider.calls[1].messages[-1].content == "The tool did not answer within 0.05 seconds."
    assert world.toolboxes.running == 0


async def test_a_large_result_is_cut_with_a_note() -> None:
    provider = SteppingProvider(ONE, text("ok"))
    world = world_of(
        provider, FakeToolboxes({"read": says("é" * (5 * 1024 * 1024))}), config={"max_result_bytes": 2000}
    )
    await world.runner.run(asks(session_id="s"))
    kept = provider.calls[1].messages[-1].content
    assert len(kept.encode()) <= 2000
    assert kept.endswith(f"[cut: the first of {10 * 1024 * 1024} bytes]")


@pytest.mark.parametrize("text_", ["", "a", "a" * 100, "é" * 51, "\ud800" * 40, "日本" * 30])
def test_what_is_cut_keeps_to_its_bytes(text_: str) -> None:
    assert len(cut(text_, 100).encode()) <= 100


async def test_all_that_a_turn_gathers_stays_below_what_a_commit_takes() -> None:
    numbered = [calling((f"c{n}", "read", f'{{"x": {n}}}')) for n in range(100)]
    provider = SteppingProvider(*numbered, text("enough"))
    world = world_of(
        provider, FakeToolboxes({"read": says("z" * 500_000)}), config={"max_steps": 128, "max_result_bytes": 400_000}
    )
    provider.script = [*numbered[:50], text("enough")]

    async def complete(call: Any, on_delta: Any) -> Any:
        if not call.tools:
            provider.script = [text("enough")]
        return await SteppingProvider.complete(provider, call, on_delta)

    provider.complete = complete  # type: ignore[method-assign]
    outcome = await world.runner.run(asks(session_id="s"))
    assert outcome.message.content == "enough"
    [stored] = world.sessions.turns["s"]
    assert sum(len(one.content.encode()) for one in stored.messages) < MAX_TURN_BYTES
    assert provider.calls[-1].tools == (), "with no room left, no tools are offered"


async def test_the_texts_of_all_steps_are_the_answer_streamed_or_not() -> None:
    def provider() -> SteppingProvider:
        return SteppingProvider(calling(("c1", "read", "{}"), content="Let me look."), ONE, text("It is red."))

    world = world_of(provider(), FakeToolboxes({"read": says("red")}))
    whole = await world.runner.run(asks())
    other = world_of(provider(), FakeToolboxes({"read": says("red")}))
    outcome, deltas = await streamed(other, asks())
    assert whole.message == outcome.message
    assert whole.message.content == "Let me look.\n\nIt is red."
    assert "".join(one.content for one in deltas) == whole.message.content
    assert [type(one.activity) for one in deltas if one.activity is not None] == [
        CallStarted,
        CallFinished,
        StepFinished,
        CallStarted,
        CallFinished,
        StepFinished,
    ]
    assert not any(one.tool_calls for one in deltas)


async def test_a_replay_gives_what_the_first_caller_saw() -> None:
    provider = SteppingProvider(calling(("c1", "read", "{}"), content="Wait."), text("Red."))
    world = world_of(provider, FakeToolboxes({"read": says("red")}))
    first = await world.runner.run(asks(session_id="s", request_id="r"))
    again, deltas = await streamed(world, asks(session_id="s", request_id="r"))
    assert again.replayed
    assert again.message == first.message
    assert "".join(one.content for one in deltas) == "Wait.\n\nRed."
    assert len(world.toolboxes.calls) == 1


async def test_a_transcript_of_what_the_caller_saw_is_recognised() -> None:
    provider = SteppingProvider(calling(("c1", "read", "{}"), content="Wait."), text("Red."), text("And blue."))
    world = world_of(provider, FakeToolboxes({"read": says("red")}))
    first = await world.runner.run(asks("colour?", session_id="s"))
    transcript = (Message(Role.USER, "colour?"), first.message, Message(Role.USER, "more?"))
    await world.runner.run(replace(asks(session_id="s"), messages=transcript))
    assert world.sessions.histories == 0, "by its digest"
    assert roles(world.sessions.turns["s"][1].messages) == ["user", "assistant"]
    assert roles(provider.calls[2].messages) == ["system", "user", "assistant", "tool", "assistant", "user"]
    # Without the digest the whole history is compared, in the form in which the caller knows it.
    for number, turn in enumerate(world.sessions.turns["s"]):
        world.sessions.turns["s"][number] = replace(turn, history_digest=b"")
    longer = (*transcript, Message(Role.ASSISTANT, "And blue."), Message(Role.USER, "thanks"))
    await world.runner.run(replace(asks(session_id="s"), messages=longer))
    assert world.sessions.histories == 1
