"""Calls that wait for an approval: how a turn ends with them, and what the next one makes of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from chat_gateway.agents.agent import TurnContext
from chat_gateway.convert.messages import turn_to_proto
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.answers import visible
from chat_gateway.model.errors import ApprovalUnknown
from chat_gateway.model.journal import JournalEntry
from chat_gateway.model.stored_turn import Lease
from chat_gateway.model.tools import Approval, ClientTool, PendingApproval, ServerTools, ToolPolicy
from chat_gateway.model.turn import Answer, FinishReason, Message, OnDelta, Sampling, TurnRequest
from chat_gateway.providers.provider import ModelCall, Provider
from chat_gateway.templates.assistant import AssistantAgent, AssistantTemplate1
from contract.enums import HistoryPolicy, Role
from servicekit.errors import Code, InvalidArgument, ServiceError
from session_svc.edge.turn_convert import early_calls
from tests.doubles.chat_gateway.sessions import remote
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes, says
from tests.unit.chat_gateway.stepping_provider import SteppingProvider, calling, text
from tests.unit.chat_gateway.strict_prompts import check_prompt
from tests.unit.chat_gateway.world import FakeConfigs, World, asks, make_config

TOOLS = (ServerTools(tool_server="files"), ClientTool("locate"))
ASKS = calling(
    ("g1", "read", "{}"),
    ("a1", "delete", '{"x":1}'),
    ("a2", "delete", '{"x":2}'),
    ("k1", "locate", "{}"),
    content="Ok?",
)


class OneCallTemplate(AssistantTemplate1):
    """As one that knows nothing of tools."""

    id = "one-call"

    def build(self, config: AgentConfig, provider: Provider) -> AssistantAgent:
        return OneCallAgent(config, provider)


class OneCallAgent(AssistantAgent):
    async def respond(self, context: TurnContext, on_delta: OnDelta | None) -> Answer:
        answer = await self._provider.complete(ModelCall("m", self.prompt(context), Sampling()), on_delta)
        return Answer((answer.message,), answer.finish_reason, answer.usage, answer.model)


def make_world(*script: Message, templates: Sequence[Any] = (), **policy: str) -> World:
    boxes = FakeToolboxes({"read": says("file"), "delete": says("deleted")}, needs_approval={"delete"})
    config = make_config(tools=TOOLS, tool_policy=ToolPolicy(**policy))  # type: ignore[arg-type]
    return World(provider=SteppingProvider(*script), toolboxes=boxes, configs=FakeConfigs(config), templates=templates)


def approves(*approvals: Approval, messages: tuple[Message, ...] = (), **changes: Any) -> TurnRequest:
    return replace(asks(session_id="s"), messages=messages, approvals=approvals, **changes)


async def test_a_turn_ends_with_calls_that_wait_and_runs_the_others() -> None:
    world = make_world(ASKS)
    outcome = await world.runner.run(asks(session_id="s", request_id="r"))
    assert outcome.finish_reason is FinishReason.REQUIRES_APPROVAL
    assert outcome.pending == (PendingApproval("a1", "delete", '{"x":1}'), PendingApproval("a2", "delete", '{"x":2}'))
    assert [call.id for call in outcome.message.tool_calls] == ["k1"], "the caller's own are its to run"
    assert [name for name, _, _ in world.toolboxes.calls] == ["read"]
    [stored] = world.sessions.turns["s"]
    assert stored.awaiting == ("a1", "a2")
    assert [one.role.value for one in stored.messages] == ["user", "assistant", "tool"]
    again = await world.runner.run(asks(session_id="s", request_id="r"))
    assert (again.replayed, again.pending, again.message) == (True, outcome.pending, outcome.message)


async def test_the_next_turn_approves_some_and_rejects_others() -> None:
    world = make_world(ASKS, text("One is gone."))
    await world.runner.run(asks(session_id="s"))
    approval = Approval("a1", True), Approval("a2", False, "I need that one")
    result = Message(Role.TOOL, "home", tool_call_id="k1")
    outcome = await world.runner.run(approves(*approval, messages=(result,)))
    assert outcome.message.content == "One is gone."
    assert [call_id for _, _, call_id in world.toolboxes.calls] == ["g1", "a1"]
    sent = world.provider.calls[1].messages
    check_prompt(sent)
    results = {one.tool_call_id: one.content for one in sent if one.role is Role.TOOL}
    assert results == {
        "g1": "file",
        "a1": "deleted",
        "a2": "Not run: the user rejected this call: I need that one",
        "k1": "home",
    }


async def test_a_call_that_an_approval_does_not_name_is_rejected() -> None:
    world = make_world(ASKS, text("ok"))
    await world.runner.run(asks(session_id="s"))
    await world.runner.run(approves(Approval("a2", True), messages=(Message(Role.USER, "that one"),)))
    assert [call_id for _, _, call_id in world.toolboxes.calls] == ["g1", "a2"]
    sent = world.provider.calls[1].messages
    check_prompt(sent)
    assert "Not run: the user rejected this call." in [one.content for one in sent]
    assert sent[-1].content == "that one"


async def test_approvals_alone_are_a_turn_and_the_policys_choice_is_not_made_again() -> None:
    world = make_world(ASKS, text("gone"), tool_choice="required")
    await world.runner.run(asks(session_id="s"))
    outcome = await world.runner.run(approves(Approval("a1", True), request_id="r"))
    assert outcome.message.content == "gone"
    assert world.provider.calls[1].tool_choice == ""
    stored = world.sessions.turns["s"][1]
    assert [one.role.value for one in stored.messages] == ["tool", "tool", "assistant"]
    again = await world.runner.run(approves(Approval("a1", True), request_id="r"))
    assert (again.replayed, again.message.content) == (True, "gone")
    assert len(world.toolboxes.calls) == 2


async def test_what_is_approved_runs_whatever_else_is_allowed_now() -> None:
    world = make_world(ASKS, text("gone"))
    await world.runner.run(asks(session_id="s"))
    await world.runner.run(approves(Approval("a1", True), allowed_tools=frozenset({"read"}), tool_choice="auto"))
    assert "a1" in [call_id for _, _, call_id in world.toolboxes.calls]
    assert [tool.name for tool in world.provider.calls[1].tools] == ["read"]


async def test_another_message_rejects_what_waits_and_the_session_goes_on() -> None:
    world = make_world(ASKS, text("never mind"), text("ok"))
    await world.runner.run(asks(session_id="s"))
    outcome = await world.runner.run(asks("forget it", session_id="s"))
    assert outcome.message.content == "never mind"
    check_prompt(world.provider.calls[1].messages)
    with pytest.raises(ApprovalUnknown):
        await world.runner.run(approves(Approval("a1", True)))
    assert [name for name, _, _ in world.toolboxes.calls] == ["read"]


@pytest.mark.parametrize("call_id", ["k1", "g1", "other"])
async def test_only_a_call_that_waits_can_be_approved(call_id: str) -> None:
    world = make_world(ASKS, text("ok"))
    await world.runner.run(asks(session_id="s"))
    with pytest.raises(ApprovalUnknown) as caught:
        await world.runner.run(approves(Approval(call_id, True)))
    assert caught.value.metadata == {"tool_call_id": call_id}
    assert len(world.sessions.turns["s"]) == 1


async def test_the_caller_can_not_make_up_the_result_of_a_call_that_waits() -> None:
    world = make_world(ASKS, text("ok"))
    await world.runner.run(asks(session_id="s"))
    made_up = Message(Role.TOOL, "deleted, and paid for", tool_call_id="a1")
    with pytest.raises(InvalidArgument, match=r"messages\[0\].tool_call_id"):
        await world.runner.run(replace(asks(session_id="s"), messages=(made_up,)))


async def test_approvals_may_come_with_the_callers_transcript() -> None:
    world = make_world(ASKS, text("gone"), text("bye"))
    first = await world.runner.run(asks("delete it", session_id="s"))
    seen = (Message(Role.USER, "delete it"), first.message, Message(Role.TOOL, "home", tool_call_id="k1"))
    outcome = await world.runner.run(approves(Approval("a1", True), messages=seen))
    assert outcome.message.content == "gone"
    assert len(world.sessions.turns["s"]) == 2
    longer = (*seen, outcome.message, Message(Role.USER, "thanks"))
    await world.runner.run(replace(asks(session_id="s"), messages=longer))
    check_prompt(world.provider.calls[2].messages)
    assert world.sessions.histories == 0


async def test_a_call_of_a_turn_that_a_transcript_replaces_is_not_made_again() -> None:
    world = make_world(ASKS, text("gone"), text("again"))
    first = await world.runner.run(asks("delete it", session_id="s"))
    seen = (Message(Role.USER, "delete it"), first.message, Message(Role.TOOL, "home", tool_call_id="k1"))
    approved = approves(Approval("a1", True), messages=seen)
    await world.runner.run(approved)
    await world.runner.run(replace(approved, approvals=(Approval("a1", True),), history=HistoryPolicy.REPLACE))
    assert world.sessions.turns["s"][-1].messages[-1].content == "again"
    assert len(world.sessions.turns["s"]) == 2, "it replaced the turn before it"
    assert [call_id for _, _, call_id in world.toolboxes.calls].count("a1") == 1
    told = {one.tool_call_id: one.content for one in world.provider.calls[-1].messages if one.role is Role.TOOL}
    assert "unknown" in told["a1"]


async def test_a_new_session_has_nothing_to_approve() -> None:
    with pytest.raises(ApprovalUnknown):
        await make_world(text("hi")).runner.run(approves(Approval("a1", True)))


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_call_that_a_failed_turn_began_is_not_made_again_when_it_is_approved_again(idempotent: bool) -> None:
    world = make_world(ASKS, text("ok"))
    world.toolboxes.idempotent = {"delete"} if idempotent else set()
    await world.runner.run(asks(session_id="s"))
    result = Message(Role.TOOL, "home", tool_call_id="k1")
    approved = approves(Approval("a1", True), Approval("a2", False), messages=(result,))
    world.sessions.commit_errors.append(remote("SESSION_FULL", Code.FAILED_PRECONDITION))
    with pytest.raises(ServiceError):
        await world.runner.run(approved)
    await world.aborts.close(60)
    await world.runner.run(approves(Approval("a1", True), Approval("a2", True), messages=(result,)))
    made = [call_id for _, _, call_id in world.toolboxes.calls]
    assert made.count("a1") == 1 + idempotent
    assert made.count("a2") == 1, "it was rejected before, and never made"
    told = {one.tool_call_id: one.content for one in world.provider.calls[-1].messages if one.role is Role.TOOL}
    assert ("unknown" in told["a1"]) is not idempotent
    assert told["a2"] == "deleted"


async def test_a_call_that_a_failed_turn_began_is_not_made_again_after_it_was_rejected_by_another() -> None:
    world = make_world(ASKS, text("ok"), text("ok"), text("ok"))
    await world.runner.run(asks(session_id="s"))
    result = Message(Role.TOOL, "home", tool_call_id="k1")
    for approve in (True, False):
        world.sessions.commit_errors.append(remote("SESSION_FULL", Code.FAILED_PRECONDITION))
        with pytest.raises(ServiceError):
            await world.runner.run(approves(Approval("a1", approve, "no"), messages=(result,)))
        await world.aborts.close(60)
    told = {one.tool_call_id: one.content for one in world.provider.calls[-1].messages if one.role is Role.TOOL}
    assert told["a1"].startswith("The user rejected this call: no\nThe outcome of this call is unknown")
    assert told["a2"] == "Not run: the user rejected this call."
    await world.runner.run(approves(Approval("a1", True), Approval("a2", True), messages=(result,)))
    made = [call_id for _, _, call_id in world.toolboxes.calls]
    assert (made.count("a1"), made.count("a2")) == (1, 1)


@pytest.mark.parametrize("has_loop", [True, False])
async def test_a_call_that_a_failed_turn_began_is_not_made_after_the_turn_that_dropped_it_is_removed(
    has_loop: bool,
) -> None:
    world = make_world(ASKS, text("done"), text("never mind"), text("ok"), templates=(OneCallTemplate(),))
    await world.runner.run(asks("delete it", session_id="s"))
    waiting = world.sessions.turns["s"][0]
    result = Message(Role.TOOL, "home", tool_call_id="k1")
    world.sessions.commit_errors.append(remote("SESSION_FULL", Code.FAILED_PRECONDITION))
    with pytest.raises(ServiceError):
        await world.runner.run(approves(Approval("a1", True), messages=(result,)))
    await world.aborts.close(60)
    configured = world.configs.known["default", "support"]
    if not has_loop:
        world.configs.known["default", "support"] = replace(configured, template_id="one-call", revision=2)
    await world.runner.run(asks("forget it", session_id="s"))
    dropping = world.sessions.turns["s"][1]
    if has_loop:
        told = {one.tool_call_id: one.content for one in world.provider.calls[-1].messages if one.role is Role.TOOL}
        assert "unknown" in told["a1"]
    assert early_calls(turn_to_proto(dropping).SerializeToString()) == ("a1",), "what DeleteTurn finds"
    world.configs.known["default", "support"] = configured
    seen = (Message(Role.USER, "delete it"), visible(waiting.messages[1:], waiting.awaiting), result)
    again = approves(Approval("a1", True), Approval("a2", True), messages=seen, history=HistoryPolicy.REPLACE)
    await world.runner.run(again)
    assert len(world.sessions.turns["s"]) == 2, "it replaced the turn before it"
    made = [call_id for _, _, call_id in world.toolboxes.calls]
    assert (made.count("a1"), made.count("a2")) == (1, 1)


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_session_svc_without_journals_runs_turns_with_tools_that_ask_for_none(resumable: bool) -> None:
    """As in an upgrade in which gateways come first."""
    world = make_world(calling(("g1", "read", "{}")), text("ok"))
    world.sessions.append_errors = [remote("NOT_IMPLEMENTED", Code.UNIMPLEMENTED) for _ in range(9)]
    request = asks(session_id="s", resumable=resumable)
    if resumable:
        with pytest.raises(ServiceError) as caught:
            await world.runner.run(request)
        assert caught.value.reason == "NOT_IMPLEMENTED"
        return
    outcome = await world.runner.run(request)
    assert (outcome.message.content, outcome.turn_number) == ("ok", 1)
    assert [name for name, _, _ in world.toolboxes.calls] == ["read"]


@pytest.mark.parametrize("refusals", [1, 99])
async def test_a_journal_that_has_begun_is_not_left_half_written(refusals: int) -> None:
    """In an upgrade some replicas of session_svc have journals and some have not: another one is asked."""
    world = make_world(calling(("g1", "read", "{}")), text("ok"))
    append = world.sessions.append

    async def append_then_refuse(lease: Lease, first: int, entries: Sequence[JournalEntry]) -> str:
        last = await append(lease, first, entries)
        if first == 1:
            world.sessions.append_errors = [remote("NOT_IMPLEMENTED", Code.UNIMPLEMENTED) for _ in range(refusals)]
        return last

    world.sessions.append = append_then_refuse  # type: ignore[method-assign]
    if refusals == 1:
        assert (await world.runner.run(asks(session_id="s"))).turn_number == 1
        return
    with pytest.raises(ServiceError) as caught:
        await world.runner.run(asks(session_id="s"))
    assert caught.value.reason == "NOT_IMPLEMENTED"
