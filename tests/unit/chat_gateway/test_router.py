"""The template `router`: who is handed a turn, and that it stays one session."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from access.caller import ANONYMOUS
from chat_gateway.convert.journal import entry_to_proto, event_from_proto
from chat_gateway.convert.messages import turn_from_proto, turn_to_proto
from chat_gateway.model.background import ResumableTurn
from chat_gateway.model.errors import AgentDepthExceeded, ParametersInvalid
from chat_gateway.model.journal import StepCalled
from chat_gateway.model.stored_turn import Lease
from chat_gateway.model.tools import Approval, CalledTool, ServerTools, StepFinished
from chat_gateway.model.turn import Message, Usage
from chat_gateway.resumption import steps_of
from chat_gateway.templates.router import RouterTemplate
from contract.enums import Role
from servicekit.errors import Code, ServiceError
from tests.doubles.chat_gateway.sessions import remote
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes, says
from tests.unit.chat_gateway.several_agents import Models, agent, make_world
from tests.unit.chat_gateway.stepping_provider import calling, text
from tests.unit.chat_gateway.world import World, asks

ROUTES = [
    {"agent": "billing", "keywords": ["Invoice", "refund"], "description": "Money."},
    {"agent": "repairs", "pattern": r"(?i)\\bE\\d{3}\\b", "description": "Broken things."},
    {"agent": "vip", "metadata": {"tier": "gold"}},
]


def router(**parameters: Any) -> Any:
    return agent("desk", template_id="router", parameters={"routes": ROUTES, "default": "repairs"} | parameters)


def make_router_world(desk: Any = None, **parameters: Any) -> World:
    names = ("billing", "repairs", "vip")
    said = {name: (lambda call, name=name: text(f"{name}: {len(call.messages)}")) for name in names}
    models = Models(**said, **({"desk": desk} if desk else {}))
    return make_world(models, router(**parameters), *(agent(name) for name in names))


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        ("where is my INVOICE?", "billing"),
        ("it says e123 again", "repairs"),
        ("E1234", "repairs"),
        ("hello", "repairs"),
    ],
)
async def test_the_first_rule_that_matches_says_who_answers(said: str, answers: str) -> None:
    outcome = await make_router_world().runner.run(asks(said, agent_id="desk"))
    assert outcome.message.content.startswith(f"{answers}:")


async def test_session_metadata_is_a_rule_and_no_default_means_the_first() -> None:
    world = make_router_world(default="")
    assert (await world.runner.run(asks(agent_id="desk"))).message.content == "billing: 2"
    world.sessions.metadata = {"tier": "gold", "x": "y"}
    assert (await world.runner.run(asks(agent_id="desk"))).message.content == "vip: 2"


async def test_all_of_them_see_one_session() -> None:
    world = make_router_world()
    await world.runner.run(asks("refund please", agent_id="desk", session_id="s"))
    outcome = await world.runner.run(asks("and E404", agent_id="desk", session_id="s"))
    assert outcome.message.content == "repairs: 4"
    assert len(world.sessions.turns["s"]) == 2


@pytest.mark.parametrize(
    "says_",
    [
        calling(("c", "hand_over", '{"agent": "vip"}')),
        text("I think vip"),
        calling(("c", "x", "["), content="vip!"),
        calling(("c", "hand_over", "[" * 100_000), content="vip!"),
    ],
)
async def test_the_model_chooses_where_no_rule_does(says_: Message) -> None:
    world = make_router_world(desk=lambda call: says_, ask_model=True)
    outcome = await world.runner.run(asks("hm", agent_id="desk"))
    assert outcome.message.content == "vip: 2"
    assert outcome.usage == Usage(20, 2)
    [(_, asked), _] = world.provider.calls
    assert "- billing: Money." in asked.messages[0].content
    assert asked.tool_choice == "hand_over"


async def test_the_agent_that_is_chosen_has_its_own_tools() -> None:
    def billing(call: Any) -> Message:
        last = call.messages[-1]
        return text(last.content) if last.role is Role.TOOL else calling(("c", "read", "{}"))

    boxes = FakeToolboxes({"read": says("paid")})
    config = agent("billing", ServerTools(tool_server="books"))
    world = make_world(Models(billing=billing), router(), config, toolboxes=boxes)
    outcome = await world.runner.run(asks("refund", agent_id="desk", session_id="s"))
    assert outcome.message.content == "paid"
    [turn] = world.sessions.turns["s"]
    assert [one.role.value for one in turn.messages] == ["user", "assistant", "tool", "assistant"]


def asking_desk(*answers: str) -> Any:
    """A model that chooses another agent each time."""
    left = list(answers)
    return lambda call: text(left.pop(0))


def transfers(call: Any) -> Message:
    last = call.messages[-1]
    return text(last.content) if last.role is Role.TOOL else calling(("a1", "transfer", "{}"))


@pytest.mark.parametrize("messages", [(), (Message(Role.USER, "yes, E123"),)], ids=["alone", "with a message"])
async def test_the_agent_whose_calls_were_approved_goes_on_with_them(messages: tuple[Message, ...]) -> None:
    boxes = FakeToolboxes({"transfer": says("moved")}, needs_approval={"transfer"})
    config = agent("billing", ServerTools(tool_server="books"))
    models = Models(billing=transfers, repairs=lambda call: text("hm"), desk=asking_desk("billing", "repairs"))
    world = make_world(models, router(ask_model=True), config, agent("repairs"), toolboxes=boxes)
    first = await world.runner.run(asks("please", agent_id="desk", session_id="s"))
    assert [one.call_id for one in first.pending] == ["a1"]
    [stored] = world.sessions.turns["s"]
    assert turn_from_proto(turn_to_proto(stored)).handed_to == ("billing",)
    approval = replace(asks(agent_id="desk", session_id="s"), messages=messages, approvals=(Approval("a1", True),))
    outcome = await world.runner.run(approval)
    assert [one.content for one in outcome.said if one.role is Role.TOOL] == ["moved"]
    assert [name for name, _ in world.provider.calls] == ["desk", "billing", "billing"]
    again = await world.runner.run(asks("and E123", agent_id="desk", session_id="s"))
    assert again.message.content == "hm", "another turn is another choice"


async def test_a_call_of_the_chosen_agent_that_a_failed_turn_began_is_not_made_again() -> None:
    boxes = FakeToolboxes({"transfer": says("moved")}, needs_approval={"transfer"})
    config = agent("billing", ServerTools(tool_server="books"))
    models = Models(billing=transfers, desk=lambda call: text("billing"))
    world = make_world(models, router(ask_model=True), config, agent("repairs"), toolboxes=boxes)
    await world.runner.run(asks("please", agent_id="desk", session_id="s"))
    approval = replace(asks(agent_id="desk", session_id="s"), messages=(), approvals=(Approval("a1", True),))
    world.sessions.commit_errors.append(remote("SESSION_FULL", Code.FAILED_PRECONDITION))
    with pytest.raises(ServiceError):
        await world.runner.run(approval)
    await world.aborts.close(60)
    outcome = await world.runner.run(approval)
    assert "unknown" in outcome.message.content
    assert [call_id for _, _, call_id in boxes.calls] == ["a1"]


async def test_a_turn_whose_agents_call_no_tools_has_no_journal() -> None:
    world = make_router_world()
    await world.runner.run(asks("hm", agent_id="desk", session_id="s"))
    assert world.sessions.journals == {}


async def test_a_picked_up_turn_goes_on_with_the_agent_that_it_was_handed_over_to() -> None:
    called = StepCalled(1, calling(("c1", "read", "{}")), Usage(), (CalledTool("c1", "files"),), (), ("billing",))
    written = event_from_proto(entry_to_proto(called), None, "t", "s")
    assert written is not None
    assert written.entry == called
    boxes = FakeToolboxes({"read": says("paid")})
    models = Models(billing=lambda call: text(call.messages[-1].content), desk=asking_desk("repairs"))
    config = agent("billing", ServerTools(tool_server="books"))
    world = make_world(models, router(ask_model=True), config, agent("repairs"), toolboxes=boxes)
    lease = Lease("default", "s", "t", 1, datetime.now(UTC) + timedelta(seconds=60), journaled=True, goes_on=True)
    asked = ResumableTurn(asks(agent_id="desk", session_id="s"), ANONYMOUS, 1, b"", datetime.now(UTC))
    outcome = await world.runner.go_on(lease, asked, steps_of([called]))
    assert outcome.message.content == "paid"
    assert world.sessions.turns["s"][0].handed_to == ("billing",)


async def test_a_picked_up_turn_has_the_tokens_of_the_choice_that_it_does_not_make_again() -> None:
    boxes = FakeToolboxes({"read": says("paid")})

    def billing(call: Any) -> Message:
        last = call.messages[-1]
        return text(last.content) if last.role is Role.TOOL else calling(("c1", "read", "{}"))

    models = Models(billing=billing, desk=asking_desk("billing"))
    config = agent("billing", ServerTools(tool_server="books"))
    world = make_world(models, router(ask_model=True), config, agent("repairs"), toolboxes=boxes)
    whole = await world.runner.run(asks("please", agent_id="desk", session_id="s", resumable=True))
    [journal] = world.sessions.journals.values()
    entries = [one for one in journal if isinstance(one, StepCalled | StepFinished)]
    assert whole.usage == Usage(30, 3)
    assert [one.usage for one in entries] == [Usage(20, 2), Usage(20, 2)], "the choice and the first step"
    lease = Lease("default", "s2", "t", 1, datetime.now(UTC) + timedelta(seconds=60), journaled=True, goes_on=True)
    asked = ResumableTurn(asks(agent_id="desk", session_id="s2"), ANONYMOUS, 1, b"", datetime.now(UTC))
    outcome = await world.runner.go_on(lease, asked, steps_of(entries[:1]))
    assert outcome.usage == whole.usage


async def test_routers_that_hand_over_in_a_circle_end_at_the_depth() -> None:
    routes = [{"agent": "desk", "keywords": ["x"]}]
    world = make_world(Models(), agent("desk", template_id="router", parameters={"routes": routes}))
    with pytest.raises(AgentDepthExceeded):
        await world.runner.run(asks(agent_id="desk"))


def test_its_parameters_have_a_schema() -> None:
    Draft202012Validator.check_schema(dict(RouterTemplate.parameters_schema))
    check = Draft202012Validator(dict(RouterTemplate.parameters_schema)).is_valid
    assert check({"routes": ROUTES})
    assert not check({"routes": []})
    assert not check({"routes": [{"agent": "Not An Id"}]})
    assert not check({"routes": ROUTES, "other": 1})


async def test_a_pattern_that_is_none_is_named() -> None:
    world = make_router_world(routes=[{"agent": "billing", "pattern": "("}])
    with pytest.raises(ParametersInvalid, match=r"routes\[0\].pattern"):
        await world.runner.run(asks(agent_id="desk"))
