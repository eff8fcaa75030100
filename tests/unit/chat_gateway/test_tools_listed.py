"""The tools that a turn tells its caller of: once, within a bound, and to those who ask."""

from typing import Any

import pytest

from chat_gateway.convert.journal import entry_to_proto, event_from_proto
from chat_gateway.convert.messages import turn_from_proto, turn_to_proto
from chat_gateway.convert.tools_listed import tools_listed_from_bytes, tools_listed_to_bytes
from chat_gateway.model.tools import ToolsUnavailable
from chat_gateway.model.tools_listed import (
    MAX_TOOLS_LISTED_BYTES,
    ListedServer,
    ListedTool,
    ToolsListed,
    within_bound,
)
from chat_gateway.model.turn import Message
from chat_gateway.resumption import steps_of
from contract.enums import Role
from tests.doubles.chat_gateway.toolboxes import SCHEMA, FakeToolboxes, says
from tests.unit.chat_gateway.stepping_provider import SteppingProvider, text
from tests.unit.chat_gateway.tool_world import ONE, streamed, world_of
from tests.unit.chat_gateway.world import asks

FILES = ToolsListed(
    (
        ListedServer("files", (ListedTool("read", "Does read.", SCHEMA),)),
        ListedServer("mail", error="can't be reached"),
    )
)


def boxes() -> FakeToolboxes:
    return FakeToolboxes({"read": says("file")}, unavailable=(ToolsUnavailable("mail", "can't be reached"),))


async def test_who_asks_is_told_first_and_the_turn_keeps_it() -> None:
    world = world_of(SteppingProvider(ONE, text("done")), boxes())
    outcome, deltas = await streamed(world, asks(session_id="s", lists_tools=True))
    assert next(delta.activity for delta in deltas if delta.activity is not None) == FILES
    [stored] = world.sessions.turns["s"]
    assert outcome.listed == stored.listed == FILES
    again = turn_from_proto(turn_to_proto(stored))
    assert again.listed == FILES


async def test_nobody_else_is_told() -> None:
    world = world_of(SteppingProvider(ONE, text("done"), text("more")), boxes())
    _, deltas = await streamed(world, asks(session_id="s"))
    assert not any(isinstance(delta.activity, ToolsListed) for delta in deltas)
    [stored] = world.sessions.turns["s"]
    assert stored.listed is None
    assert not turn_to_proto(stored).tools_listed
    outcome, _ = await streamed(world, asks("and?", session_id="s", lists_tools=True))
    assert outcome.listed is None, "the agent has spoken in the session"


async def test_a_stream_that_can_be_read_again_has_it_in_its_journal() -> None:
    world = world_of(SteppingProvider(ONE, text("done")), boxes())
    outcome, _ = await streamed(world, asks(session_id="s", lists_tools=True, resumable=True))
    entries = world.sessions.journals[outcome.turn_id]
    [entry] = [one for one in entries if isinstance(one, ToolsListed)]
    read = event_from_proto(entry_to_proto(entry), None, "t", "s")
    assert read is not None
    assert read.entry == entry == FILES
    assert steps_of(entries).listed == FILES, "who goes on with the turn tells nobody again"


async def test_the_journal_of_any_other_turn_begins_with_its_first_call() -> None:
    world = world_of(SteppingProvider(text("done")), boxes())
    await streamed(world, asks(session_id="s", lists_tools=True))
    assert not world.sessions.journals


def sized(tools: int, description: str, schema: Any) -> ToolsListed:
    made = tuple(ListedTool(f"tool-{number}", description, schema) for number in range(tools))
    return within_bound([ListedServer("files", made), ListedServer("mail", made)])


LARGE = {"type": "object", "properties": {f"field_{number}": {"type": "string"} for number in range(100)}}


@pytest.mark.parametrize(
    ("listed", "tools", "described", "with_schema"),
    [
        (sized(2, "Does it.", SCHEMA), 2, True, True),
        (sized(10, "Does it.", LARGE), 10, True, False),
        (sized(10, "x" * 4000, LARGE), 10, False, False),
        (sized(5000, "Does it.", SCHEMA), 78, False, False),
    ],
    ids=["small", "schemas", "descriptions", "tools"],
)
def test_what_is_too_large_is_left_out_in_order(
    listed: ToolsListed, tools: int, described: bool, with_schema: bool
) -> None:
    kept = tools_listed_to_bytes(listed)
    assert len(kept) <= MAX_TOOLS_LISTED_BYTES
    assert tools_listed_from_bytes(kept) == listed
    for server in listed.servers:
        assert len(server.tools) == tools
        assert (bool(server.tools[0].description), server.tools[0].parameters is not None) == (described, with_schema)
        assert bool(server.error) == (tools == 78)


def test_what_a_later_release_keeps_is_no_error() -> None:
    assert tools_listed_from_bytes(b"") is None
    assert tools_listed_from_bytes(b"\x01gibberish") is None
    assert tools_listed_from_bytes(b'[{"server":"a","more":1}]') == ToolsListed((ListedServer("a"),))


async def test_a_conversation_that_has_the_agents_words_is_not_told_again() -> None:
    world = world_of(SteppingProvider(text("done")), boxes())
    before = (Message(Role.USER, "hi"), Message(Role.ASSISTANT, "hello"), Message(Role.USER, "and?"))
    outcome, _ = await streamed(world, asks(stateless=True, lists_tools=True, messages=before))
    assert outcome.listed == FILES, "what the request brings says nothing of the tools"
