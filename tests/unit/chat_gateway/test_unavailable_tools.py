"""Calls of tools that are unavailable: never taken for tools that do not exist, nor for others of the same name."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from access.caller import ANONYMOUS
from chat_gateway.convert.journal import committed_to_proto, entry_to_proto, event_from_proto
from chat_gateway.convert.messages import turn_from_proto, turn_to_proto
from chat_gateway.model.background import ResumableTurn
from chat_gateway.model.errors import ToolServerUnavailable
from chat_gateway.model.journal import JournalEntry, StepCalled, TurnBegun
from chat_gateway.model.stored_turn import Lease
from chat_gateway.model.tool_names import may_be_named, unique_names
from chat_gateway.model.tools import (
    Approval,
    CalledTool,
    CallStarted,
    PendingApproval,
    ToolOutcome,
    ToolsUnavailable,
    merged_unavailable,
)
from chat_gateway.model.turn import FinishReason, Message, Tool, TurnOutcome, TurnRequest
from chat_gateway.model.usage import Usage
from chat_gateway.resumption import steps_of
from contract.enums import Role
from servicekit.errors import InvalidArgument
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes, says
from tests.unit.chat_gateway.stepping_provider import SteppingProvider, calling, text
from tests.unit.chat_gateway.strict_prompts import check_prompt
from tests.unit.chat_gateway.tool_world import world_of
from tests.unit.chat_gateway.world import World, asks

DOWN = ToolsUnavailable("files", "can't be reached")
READS = calling(("c1", "read", "{}"))
DELETES = calling(("a1", "delete", "{}"))


def boxes(*names: str, **more: object) -> FakeToolboxes:
    return FakeToolboxes({name: says(f"{name} done") for name in names}, needs_approval={"delete"}, **more)  # type: ignore[arg-type]


def results(messages: tuple[Message, ...]) -> dict[str, str]:
    return {one.tool_call_id: one.content for one in messages if one.role is Role.TOOL}


def approves(call_id: str, approve: bool = True, **changes: object) -> TurnRequest:
    return replace(asks(session_id="s"), messages=(), approvals=(Approval(call_id, approve),), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lacking", "unavailable"),
    [
        (DOWN, True),
        (ToolsUnavailable("files", "down", frozenset({"read"})), True),
        (ToolsUnavailable("files", "does not offer write", frozenset({"write"})), False),
        (ToolsUnavailable("files", "down", frozenset({"read"}), frozenset({"read"})), False),
        (ToolsUnavailable("files", "down", None, frozenset({"read"})), False),
        (ToolsUnavailable("files", "offers 9 more tools than are used", frozenset()), False),
    ],
    ids=["all of a server", "allowed", "another one", "allowed and denied", "denied", "too many"],
)
async def test_a_call_of_what_an_unavailable_server_may_have_says_so(
    lacking: ToolsUnavailable, unavailable: bool
) -> None:
    world = world_of(SteppingProvider(READS, text("sorry")), boxes("look", unavailable=(lacking,)))
    outcome = await world.runner.run(asks(session_id="s"))
    [run] = outcome.runs
    said = results(outcome.said)["c1"]
    if unavailable:
        assert (run.server, run.outcome) == ("files", ToolOutcome.UNAVAILABLE)
        assert "'read'" in said
        assert "'files'" in said
        assert lacking.reason in said
    else:
        assert (run.server, run.outcome) == ("", ToolOutcome.ERROR)
        assert said == "There is no tool 'read'. The tools are: look"
    assert outcome.unavailable == (lacking,)


async def test_of_two_unavailable_servers_either_may_have_it() -> None:
    lacking = (DOWN, ToolsUnavailable("shop", "did not list its tools in time"))
    world = world_of(SteppingProvider(READS, text("sorry")), boxes("look", unavailable=lacking))
    outcome = await world.runner.run(asks())
    assert (outcome.runs[0].server, outcome.runs[0].outcome) == ("", ToolOutcome.UNAVAILABLE)
    assert all(one.server in results(outcome.said)["c1"] for one in lacking)


async def waits_for_approval(world: World) -> None:
    outcome = await world.runner.run(asks(session_id="s"))
    assert outcome.finish_reason is FinishReason.REQUIRES_APPROVAL


@pytest.mark.parametrize("approve", [True, False])
@pytest.mark.parametrize("listed", [False, True], ids=["unavailable", "not offered any more"])
async def test_an_approved_call_of_an_unavailable_tool_is_unavailable(approve: bool, listed: bool) -> None:
    world = world_of(SteppingProvider(DELETES, text("sorry")), boxes("delete"))
    await waits_for_approval(world)
    world.toolboxes.tools = {"look": says("x")}
    world.toolboxes.unavailable = () if listed else (DOWN,)
    outcome = await world.runner.run(approves("a1", approve))
    [run] = outcome.runs
    assert (run.server, run.outcome) == ("files", ToolOutcome.UNAVAILABLE if approve else ToolOutcome.DENIED)
    said = results(outcome.said)["a1"]
    check_prompt(world.provider.calls[1].messages)
    if approve:
        why = "it is not offered any more" if listed else "can't be reached"
        assert said == f"Not run: the tool 'delete' of 'files' is unavailable: {why}."
    assert world.toolboxes.calls == []


async def test_an_approved_call_is_not_made_at_another_server_whose_tool_has_the_name_now() -> None:
    world = world_of(SteppingProvider(DELETES, text("sorry")), boxes("delete"))
    await waits_for_approval(world)
    world.toolboxes.server, world.toolboxes.unavailable = "shop", (DOWN,)
    outcome = await world.runner.run(approves("a1"))
    assert world.toolboxes.calls == []
    assert "unavailable: can't be reached" in results(outcome.said)["a1"]


@pytest.mark.parametrize("allowed", [frozenset[str](), frozenset({"look"})])
async def test_an_approved_call_is_made_under_the_name_that_the_tool_has_now(allowed: frozenset[str]) -> None:
    """Names depend on what other servers offer, and on whether they are available."""
    world = world_of(SteppingProvider(DELETES, text("done")), boxes("delete"))
    await waits_for_approval(world)
    world.toolboxes.tools = {"files__delete": says("gone"), "look": says("x")}
    world.toolboxes.own_names = {"files__delete": "delete"}
    outcome = await world.runner.run(approves("a1", allowed_tools=allowed))
    assert [name for name, _, _ in world.toolboxes.calls] == ["files__delete"]
    assert results(outcome.said) == {"a1": "gone"}


async def test_a_call_that_was_approved_before_servers_were_recorded_is_made_by_its_name() -> None:
    world = world_of(SteppingProvider(DELETES, text("done")), boxes("delete"))
    await waits_for_approval(world)
    world.sessions.turns["s"][0] = replace(world.sessions.turns["s"][0], runs=())
    assert results((await world.runner.run(approves("a1"))).said) == {"a1": "delete done"}


async def journal_of(world: World) -> list[JournalEntry]:
    await world.runner.run(asks(session_id="s"))
    [journal] = world.sessions.journals.values()
    return [read_again(entry) for entry in journal]


def read_again(entry: JournalEntry) -> JournalEntry:
    event = event_from_proto(entry_to_proto(entry), None, "t", "s")
    assert event is not None
    assert not isinstance(event.entry, TurnOutcome | Exception)
    return event.entry


async def go_on(world: World, journal: list[JournalEntry], request: TurnRequest | None = None) -> TurnOutcome:
    """Returns the end of a turn that another gateway has begun."""
    lease = Lease("default", "s", "t", 1, datetime.now(UTC) + timedelta(seconds=60), journaled=True, goes_on=True)
    asked = ResumableTurn(request or asks(session_id="s"), ANONYMOUS, 1, b"", datetime.now(UTC))
    return await world.runner.go_on(lease, asked, steps_of(journal))


async def test_a_picked_up_turn_waits_for_the_approval_that_it_waited_for() -> None:
    """Whether or not the tool's server can be reached from there."""
    both = calling(("c1", "read", "{}"), ("a1", "delete", "{}"))
    journal = await journal_of(world_of(SteppingProvider(both), boxes("read", "delete")))
    provider = SteppingProvider(text("never asked"))
    outcome = await go_on(world_of(provider, boxes("look", unavailable=(DOWN,))), journal[:2])
    assert provider.calls == []
    assert outcome.finish_reason is FinishReason.REQUIRES_APPROVAL
    assert outcome.pending == (PendingApproval("a1", "delete", "{}"),)
    assert [(run.call_id, run.server) for run in outcome.runs] == [("c1", "files"), ("a1", "files")]
    assert "'read' of 'files' is unavailable: can't be reached" in results(outcome.said)["c1"]
    assert outcome.unavailable == (DOWN,)


async def test_a_picked_up_turn_is_without_what_it_was_without_before() -> None:
    shop = ToolsUnavailable("shop", "can't be reached")
    world = world_of(SteppingProvider(READS, text("ok")), boxes("read", unavailable=(shop,)))
    journal = await journal_of(world)
    [stored] = world.sessions.turns["s"]
    assert stored.unavailable == (shop,)
    for unavailable in ((), (shop,), (DOWN,)):
        again = world_of(SteppingProvider(text("ok")), boxes("read", unavailable=unavailable))
        outcome = await go_on(again, journal)
        assert outcome.unavailable == merged_unavailable((shop,), unavailable)
        assert again.sessions.turns["s"][0].unavailable == outcome.unavailable


async def test_so_is_one_that_began_with_approved_calls() -> None:
    world = world_of(SteppingProvider(DELETES, text("done")), boxes("delete", unavailable=(DOWN,)))
    await waits_for_approval(world)
    await world.runner.run(approves("a1"))
    entries = list(world.sessions.journals.values())[1]
    assert steps_of(map(read_again, entries[:2])).unavailable == (DOWN,)


async def test_a_picked_up_call_of_another_servers_tool_of_the_name_is_not_made() -> None:
    journal = await journal_of(world_of(SteppingProvider(READS, text("ok")), boxes("read")))
    asked = [entry for entry in journal if isinstance(entry, TurnBegun | StepCalled)]
    world = world_of(SteppingProvider(text("sorry")), boxes("read", server="shop", unavailable=(DOWN,)))
    await go_on(world, asked)
    assert world.toolboxes.calls == []


async def test_ids_of_calls_that_come_again_are_of_the_tools_of_now() -> None:
    journal = await journal_of(world_of(SteppingProvider(READS, text("ok")), boxes("read")))
    asked = [entry for entry in journal if isinstance(entry, TurnBegun | StepCalled)]
    world = world_of(SteppingProvider(calling(("c1", "look", "{}")), text("ok")), boxes("look", server="shop"))
    outcome = await go_on(world, asked)
    assert [name for name, _, _ in world.toolboxes.calls] == ["look"]
    assert [run.server for run in outcome.runs] == ["files", "shop"]


async def test_a_function_of_the_request_stays_one_where_a_server_with_its_name_is_available_now() -> None:
    both = calling(("c1", "read", "{}"), ("k1", "locate", "{}"))
    world = world_of(SteppingProvider(both), boxes("read", unavailable=(ToolsUnavailable("maps", "down"),)))
    request = asks(session_id="s", tools=(Tool("locate"),))
    await world.runner.run(request)
    [journal] = world.sessions.journals.values()
    asked = [entry for entry in journal if isinstance(entry, TurnBegun | StepCalled)]
    world = world_of(SteppingProvider(), boxes("read", "locate"))
    outcome = await go_on(world, asked, request)
    assert [call.id for call in outcome.message.tool_calls] == ["k1"]
    assert [one.server for one in outcome.unavailable] == ["maps", "files"]


async def test_a_repeat_and_the_end_of_a_journal_say_what_the_turn_was_without() -> None:
    world = world_of(SteppingProvider(DELETES), boxes("delete", unavailable=(DOWN,)))
    request = asks(session_id="s", request_id="r")
    outcome = await world.runner.run(request)
    again = await world.runner.run(request)
    assert again.replayed
    assert again.unavailable == outcome.unavailable == (DOWN,)
    [stored] = world.sessions.turns["s"]
    assert turn_from_proto(turn_to_proto(stored)).unavailable == (DOWN,)
    ended = event_from_proto(committed_to_proto(stored), None, "t", "s")
    assert ended is not None
    assert isinstance(ended.entry, TurnOutcome)
    assert (ended.entry.unavailable, ended.entry.pending) == (outcome.unavailable, outcome.pending)


@pytest.mark.parametrize("lacking", [(), (DOWN,)])
async def test_a_tool_that_is_chosen_and_unavailable_is_not_a_bad_request(
    lacking: tuple[ToolsUnavailable, ...],
) -> None:
    world = world_of(SteppingProvider(text("ok"), text("ok")), boxes("look", unavailable=lacking))
    with pytest.raises(ToolServerUnavailable if lacking else InvalidArgument):
        await world.runner.run(asks(tool_choice="read"))
    allowed = asks(tool_choice="auto", allowed_tools=frozenset({"read", "look"}))
    if not lacking:
        with pytest.raises(InvalidArgument):
            await world.runner.run(allowed)
        return
    assert (await world.runner.run(allowed)).unavailable == lacking
    assert [tool.name for tool in world.provider.calls[0].tools] == ["look"]


def test_what_is_recorded_of_unavailable_tools_is_bounded() -> None:
    many = tuple(ToolsUnavailable(f"s{n}", "x" * 9000) for n in range(200))
    bounded = merged_unavailable((), many)
    assert (len(bounded), {len(one.reason) for one in bounded}) == (64, {500})
    assert merged_unavailable(bounded, many) == bounded


def test_names_that_a_tool_may_have() -> None:
    for tools in ([("a", "x.y"), ("b", "x_y"), ("b", "z")], [("a", "x"), ("b", "x")], [("a", "x"), ("a__x", "a__x")]):
        for name, (server, own_name) in zip(unique_names(tools), tools, strict=True):
            assert may_be_named(name, server, own_name)
            assert not may_be_named(name, server, "other")


def test_entries_without_tools_are_those_of_an_older_release() -> None:
    older = StepCalled(1, READS, Usage())
    assert read_again(older) == older
    newer = replace(older, tools=(CalledTool("c1", "files", True),), unavailable=(DOWN,))
    assert read_again(newer) == newer
    started = CallStarted(1, "c1", "read", "{}", "files", (DOWN,))
    assert read_again(started) == started
