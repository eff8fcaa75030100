"""Invariant 10: whatever callers, models and windows do, every prompt is one that a strict provider takes."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_gateway.agents.prompt import LATE_RESULT, NO_OUTPUT, NO_TEXT, prompt_messages
from chat_gateway.model.errors import ApprovalUnknown, ToolCallsRepeated
from chat_gateway.model.tools import Approval, ClientTool, ServerTools, ToolPolicy, ToolsUnavailable
from chat_gateway.model.turn import FinishReason, Message, OnDelta, Sampling, TextPart, ToolCall, Usage
from chat_gateway.providers.anthropic import request as anthropic
from chat_gateway.providers.gemini import request as gemini
from chat_gateway.providers.openai import request as openai
from chat_gateway.providers.openai.dialect import PRESETS
from chat_gateway.providers.paired import NO_RESULT, one_system_message
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from contract.enums import Role
from servicekit.errors import InvalidArgument
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes, says
from tests.unit.chat_gateway.strict_prompts import (
    check_generate_content,
    check_messages_api,
    check_one_system,
    check_prompt,
    messages_on_the_wire,
)
from tests.unit.chat_gateway.world import FakeConfigs, FakeProvider, World, asks, make_config

TEXTS = st.sampled_from(["hi", "", " \n", "more"])
RESULTS = st.sampled_from(["42", "", " "])
IDS = st.sampled_from(["call_1", "call_2", "call_3", "other"])


def user(text: str) -> Message:
    return Message(Role.USER, text)


def calling(*ids: str, text: str = "") -> Message:
    return Message(Role.ASSISTANT, text, tool_calls=tuple(ToolCall(one, "f", "{}") for one in ids))


def result(call_id: str, text: str = "42") -> Message:
    return Message(Role.TOOL, text, tool_call_id=call_id)


ANSWERS = st.one_of(
    st.sampled_from(["fine", "", " "]).map(lambda text: Message(Role.ASSISTANT, text)),
    st.just(Message(Role.ASSISTANT, refusal="I can't help with that.")),
    st.lists(IDS, min_size=1, max_size=3, unique=True).map(lambda ids: calling(*ids)),
    st.just(calling("call_1", "call_2", text="let me see")),
)
NEW = st.lists(
    st.one_of(
        TEXTS.map(user),
        TEXTS.map(lambda text: Message(Role.SYSTEM, text)),
        st.just(Message(Role.USER, parts=(TextPart(""), TextPart("x")))),
        st.builds(result, IDS, RESULTS),
    ),
    min_size=1,
    max_size=4,
)
GONE = ToolsUnavailable("mail", "can't be reached")
WINDOWS = st.sampled_from([0, 1, 2, 3, 4, 6, 40])


def check_sent(call: ModelCall) -> None:
    """Fails where what an adapter puts on the wire is refused, whatever its dialect."""
    # Dialects differ in what becomes of system messages and ids: one of each, and a developer's at that.
    developer = replace(PRESETS["vllm"], system_role="developer")
    for dialect in (PRESETS["openai"], PRESETS["mistral"], PRESETS["vllm"], developer):
        sent = messages_on_the_wire(openai.encode_call(call, dialect, "p", stream=False))
        check_prompt(sent)
        if dialect.single_system:
            check_one_system(sent)
    check_messages_api(anthropic.encode_call(call, "p", {}, stream=False))
    check_generate_content(gemini.encode_call(call, "p", {}))


class ScriptedProvider(FakeProvider):
    """Gives each answer once, then fails: an interruption, of which nothing is stored."""

    def __init__(self, answers: Sequence[Message]) -> None:
        super().__init__()
        self._answers = list(answers)

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        self.calls.append(call)
        check_prompt(call.messages)
        check_sent(call)
        message = self._answers[len(self.calls) - 1]
        reason = FinishReason.TOOL_CALLS if message.tool_calls else FinishReason.STOP
        return ModelAnswer(message, reason, Usage(), "m")


def world_of(answers: Sequence[Message], window: int = 40) -> tuple[World, ScriptedProvider]:
    provider = ScriptedProvider(answers)
    return World(provider=provider, configs=FakeConfigs(make_config(window_messages=window))), provider


@settings(max_examples=150, deadline=None)
@given(turns=st.lists(st.tuples(NEW, ANSWERS), min_size=1, max_size=7), window=WINDOWS, instructed=st.booleans())
def test_every_prompt_of_a_session_is_taken(
    turns: list[tuple[list[Message], Message]], window: int, instructed: bool
) -> None:
    world, provider = world_of([answer for _, answer in turns], window)
    if not instructed:
        world.configs.known["default", "support"] = make_config(window_messages=window, instructions="", uid="uid-1")

    async def talk() -> None:
        for index, (new, _) in enumerate(turns):
            while len(provider.calls) < index:  # a turn that was refused calls nobody
                provider.calls.append(ModelCall("m", (), make_config().sampling))
            with contextlib.suppress(InvalidArgument):  # results of calls that do not wait for one
                await world.runner.run(asks(messages=tuple(new), session_id="s"))

    asyncio.run(talk())


ANY_MESSAGE = st.one_of(
    TEXTS.map(user),
    TEXTS.map(lambda text: Message(Role.SYSTEM, text)),
    TEXTS.map(lambda text: Message(Role.ASSISTANT, text)),
    st.builds(result, IDS, RESULTS),
    st.lists(IDS, min_size=1, max_size=3, unique=True).map(lambda ids: calling(*ids)),
)


@settings(max_examples=200, deadline=None)
@given(window=st.lists(ANY_MESSAGE, max_size=8), new=st.lists(ANY_MESSAGE, max_size=8))
def test_every_prompt_of_any_history_is_taken(window: list[Message], new: list[Message]) -> None:
    """Whatever earlier releases stored, and whatever a stateless caller brings."""
    prompt = prompt_messages("You help.", [user("start"), *window], new)
    check_prompt(prompt)
    check_sent(ModelCall("m", prompt, Sampling()))


@pytest.mark.parametrize("window", [0, 2, 4, 40])
async def test_a_chain_of_tool_calls_that_goes_on_keeps_its_task(window: int) -> None:
    world, provider = world_of([calling(f"c{n}") for n in range(30)] + [Message(Role.ASSISTANT, "done")], window)
    await world.runner.run(asks("the task", session_id="s"))
    for n in range(30):
        await world.runner.run(asks(messages=(result(f"c{n}", str(n)),), session_id="s"))
        prompt = provider.calls[-1].messages
        assert prompt[1] == user("the task")
        assert [m.content for m in prompt if m.role is Role.TOOL] == [str(i) for i in range(n + 1)]


async def test_of_a_chain_that_is_done_and_longer_than_the_window_the_task_and_the_newest_steps_are_in_the_prompt() -> (
    None
):
    answers = [calling(f"c{n}") for n in range(30)] + [Message(Role.ASSISTANT, said) for said in ("done", "it", "bye")]
    world, provider = world_of(answers, 4)
    await world.runner.run(asks("the task", session_id="s"))
    for n in range(30):
        await world.runner.run(asks(messages=(result(f"c{n}", str(n)),), session_id="s"))
    await world.runner.run(asks("what was it?", session_id="s"))
    assert provider.calls[-1].messages[3:] == [
        calling("c29"),
        result("c29", "29"),
        Message(Role.ASSISTANT, "done"),
        user("what was it?"),
    ]
    assert provider.calls[-1].messages[1:3] == [user("the task"), user(LATE_RESULT.format(id="c28", text="28"))]
    await world.runner.run(asks("and then?", session_id="s"))
    assert provider.calls[-1].messages[1:] == [
        user("the task"),
        user(LATE_RESULT.format(id="c29", text="29")),
        Message(Role.ASSISTANT, "done"),
        user("what was it?"),
        Message(Role.ASSISTANT, "it"),
        user("and then?"),
    ]


async def test_results_of_parallel_calls_in_two_requests_are_both_read() -> None:
    world, provider = world_of([calling("a", "b"), Message(Role.ASSISTANT, "waiting"), Message(Role.ASSISTANT, "ok")])
    await world.runner.run(asks("go", session_id="s"))
    await world.runner.run(asks(messages=(result("b", "B"),), session_id="s"))
    await world.runner.run(asks(messages=(result("a", "A"),), session_id="s"))
    assert provider.calls[-1].messages[1:] == [
        user("go"),
        calling("a", "b"),
        result("b", "B"),
        result("a", NO_RESULT),
        Message(Role.ASSISTANT, "waiting"),
        user(LATE_RESULT.format(id="a", text="A")),
    ]


@pytest.mark.parametrize("call_id", ["nobody", "done"])
async def test_a_result_that_no_call_waits_for_is_refused_by_name_before_the_model_is_paid(call_id: str) -> None:
    world, provider = world_of([calling("done"), calling("open"), Message(Role.ASSISTANT, "never")])
    await world.runner.run(asks("go", session_id="s"))
    await world.runner.run(asks(messages=(result("done"),), session_id="s"))
    with pytest.raises(InvalidArgument) as refused:
        await world.runner.run(asks(messages=(result("open"), result(call_id)), session_id="s"))
    assert [v.field for v in refused.value.violations] == ["messages[1].tool_call_id"]
    assert len(provider.calls) == 2
    assert len(world.sessions.turns["s"]) == 2


def test_what_was_said_before_a_result_came_stands_behind_it() -> None:
    said = [user("go"), calling("a"), user("by the way"), result("a")]
    assert prompt_messages("", said, ()) == [user("go"), calling("a"), result("a"), user("by the way")]


def test_an_id_that_a_model_uses_again_is_another_one_in_the_prompt() -> None:
    said = [user("go"), calling("c"), result("c", "1"), calling("c"), result("c", "2")]
    assert prompt_messages("", said, ()) == [
        *said[:3],
        calling("c_2"),
        result("c_2", "2"),
    ]


def test_nothing_empty_is_sent() -> None:
    said = [Message(Role.SYSTEM), user(""), Message(Role.ASSISTANT), calling("c"), result("c", "")]
    assert prompt_messages("", said, ()) == [user(NO_TEXT), calling("c"), result("c", NO_OUTPUT)]


def test_a_refusal_is_sent_as_the_text_that_it_was_given_with() -> None:
    refused = Message(Role.ASSISTANT, refusal="I can't.")
    assert prompt_messages("", (user("x"), refused), (user("why?"),))[1] == Message(Role.ASSISTANT, "I can't.")


@pytest.mark.parametrize("answer", [Message(Role.ASSISTANT), Message(Role.ASSISTANT, refusal="No.")])
async def test_what_parley_answers_it_takes_back_without_a_session(answer: Message) -> None:
    world, _ = world_of([Message(Role.ASSISTANT, "ok")])
    await world.runner.run(asks(messages=(user("x"), answer, user("y")), stateless=True))


def test_system_messages_are_one_at_the_head_where_a_template_wants_that() -> None:
    system = Message(Role.SYSTEM, "be brief")
    prompt = prompt_messages("You help.", (system, user("a"), Message(Role.ASSISTANT, "b")), (system, user("c")))
    assert one_system_message(prompt) == [
        Message(Role.SYSTEM, "You help.\n\nbe brief\n\nbe brief"),
        user("a"),
        Message(Role.ASSISTANT, "b"),
        user("c"),
    ]
    assert one_system_message(prompt[1:3]) == prompt[1:3]


NAMES = st.sampled_from(["read", "read", "delete", "locate", "unknown"])
STEPS = st.one_of(
    st.sampled_from(["fine", "", " "]).map(lambda text: Message(Role.ASSISTANT, text)),
    st.lists(st.tuples(IDS, NAMES), min_size=1, max_size=3, unique_by=lambda one: one[0]).flatmap(
        lambda calls: st.sampled_from(["", "let me see"]).map(
            lambda text: Message(
                Role.ASSISTANT, text, tool_calls=tuple(ToolCall(one, name, f'{{"x": "{one}"}}') for one, name in calls)
            )
        )
    ),
)
APPROVALS = st.lists(st.tuples(IDS, st.booleans()), max_size=2, unique_by=lambda one: one[0])


class SteppedProvider(ScriptedProvider):
    """Goes through its answers, step by step and turn by turn, then only says that it is done."""

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        if len(self.calls) >= len(self._answers):
            self._answers.append(Message(Role.ASSISTANT, "done"))
        return await super().complete(call, on_delta)


@settings(max_examples=150, deadline=None)
@given(
    turns=st.lists(st.tuples(NEW, APPROVALS), min_size=1, max_size=6),
    steps=st.lists(STEPS, max_size=12),
    window=WINDOWS,
    results=st.lists(RESULTS, min_size=1, max_size=3),
)
def test_every_prompt_of_an_agent_with_tools_is_taken(
    turns: list[tuple[list[Message], list[tuple[str, bool]]]], steps: list[Message], window: int, results: list[str]
) -> None:
    """Gateway-run calls, the caller's, those that wait and are approved, rejected or forgotten, in any mixture."""
    provider = SteppedProvider(steps)
    boxes = FakeToolboxes(
        {"read": says(results[0]), "delete": says(results[-1])}, needs_approval={"delete"}, unavailable=(GONE,)
    )
    tools = (ServerTools(tool_server="files"), ClientTool("locate"))
    config = make_config(window_messages=window, tools=tools, tool_policy=ToolPolicy(max_steps=3))
    world = World(provider=provider, toolboxes=boxes, configs=FakeConfigs(config))

    async def talk() -> None:
        for new, decided in turns:
            approvals = tuple(Approval(call_id, approve) for call_id, approve in decided)
            for asked in (approvals, ()):  # what names no call that waits is refused; the turn goes on without
                try:
                    await world.runner.run(asks(messages=tuple(new), session_id="s", approvals=asked))
                except ApprovalUnknown:
                    continue
                except (InvalidArgument, ToolCallsRepeated):
                    pass
                break

    asyncio.run(talk())
