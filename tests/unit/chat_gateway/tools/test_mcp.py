"""Tools of real MCP servers over HTTP, of both eras of the protocol."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer

from chat_gateway.model.errors import ToolServerUnavailable
from chat_gateway.model.tools import ServerTools, ToolOutcome, ToolsUnavailable
from servicekit.egress import EgressDenied
from tests.servers.mcp_server import McpServerUnderTest, Recorder, default_tools
from tests.servers.ports import free_port
from tests.unit.chat_gateway.tools.opened import opened_room

WAIT_SECONDS = 20.0


@pytest.fixture(params=[True, False], ids=["2026-07-28", "2025-11-25"])
def server(request: pytest.FixtureRequest) -> Iterator[McpServerUnderTest]:
    with McpServerUnderTest(modern=request.param) as running:
        yield running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def test_tools_are_listed_with_their_hints_and_called(server: McpServerUnderTest) -> None:
    async with opened_room() as room:
        room.put("calc", server.url)
        listed = await room.listed(ServerTools("calc", idempotent=frozenset({"charge"}), approval=frozenset({"big"})))
        tools = {tool.name: tool for tool in listed.tools}
        assert tools["add"].description == "Adds two numbers."
        assert tools["add"].parameters["required"] == ["a", "b"]
        assert {name for name, tool in tools.items() if tool.idempotent} == {"add", "fail", "charge"}
        assert {name for name, tool in tools.items() if tool.needs_approval} == {"big"}
        assert {tool.server for tool in listed.tools} == {"calc"}
        assert listed.unavailable == ()

        result = await room.call("calc", "add", '{"a": 20, "b": 22}')
        assert (result.text, result.outcome) == ("42", ToolOutcome.OK)
        assert server.recorder.calls[-1].meta["parley.dev/call-id"] == "t-1/call-1"
        assert json.loads((await room.call("calc", "structured")).text) == {"answer": 42}
        assert "image/png" in (await room.call("calc", "picture")).text


async def test_errors_of_a_tool_are_results(server: McpServerUnderTest) -> None:
    async with opened_room() as room:
        room.put("calc", server.url)
        for tool, arguments, outcome in [
            ("fail", "{}", ToolOutcome.ERROR),
            ("add", '{"a": "x"}', ToolOutcome.ERROR),
            ("ask", "{}", ToolOutcome.ERROR),
            ("add", "[1]", ToolOutcome.INVALID_ARGUMENTS),
            ("add", '{"a": 1', ToolOutcome.INVALID_ARGUMENTS),
            ("add", '{"a": NaN}', ToolOutcome.INVALID_ARGUMENTS),
            ("add", "[" * 100_000, ToolOutcome.INVALID_ARGUMENTS),
            ("nothing", "{}", ToolOutcome.INVALID_ARGUMENTS),
        ]:
            assert (await room.call("calc", tool, arguments)).outcome is outcome, (tool, arguments)


async def test_lists_are_narrowed_and_what_is_missing_is_named(server: McpServerUnderTest) -> None:
    async with opened_room() as room:
        room.put("calc", server.url)
        listed = await room.listed(
            ServerTools("calc", allow=frozenset({"add", "fail", "gone"}), deny=frozenset({"fail"}))
        )
        assert [tool.name for tool in listed.tools] == ["add"]
        assert listed.unavailable == (ToolsUnavailable("calc", "does not offer gone", frozenset({"gone"})),)
        missing = ServerTools("missing", allow=frozenset({"fail"}), deny=frozenset({"add"}))
        listed = await room.listed(missing, ServerTools("calc", allow=frozenset({"add"})))
        assert [(tool.name, tool.own_name) for tool in listed.tools] == [("add", "add")]
        [lacking] = listed.unavailable
        assert (lacking.server, lacking.only, lacking.denied) == ("missing", {"fail"}, {"add"})
        with pytest.raises(ToolServerUnavailable):
            await room.listed(ServerTools("missing", required=True))


async def test_a_hanging_call_is_cut_and_cancelled_at_the_server(server: McpServerUnderTest) -> None:
    async with opened_room() as room:
        room.put("calc", server.url)
        await room.listed(ServerTools("calc"))
        # On a busy machine it may be cut before it has begun at the server, and the notification be late.
        for seconds in (0.3, 1.0, 4.0, 40.0):
            result = await room.call("calc", "hang", seconds=seconds)
            assert result.outcome is ToolOutcome.TIMEOUT
            if begun := [one for one in server.recorder.calls if one.tool == "hang"]:
                with contextlib.suppress(TimeoutError):
                    await until(lambda begun=begun: any(one.cancelled for one in begun))
                    break
        assert any(one.cancelled for one in server.recorder.calls)
        assert (await room.call("calc", "add", '{"a": 1, "b": 1}')).text == "2"


async def test_a_caller_that_goes_cancels_the_call_at_the_server(server: McpServerUnderTest) -> None:
    async with opened_room() as room:
        room.put("calc", server.url)
        call = asyncio.create_task(room.call("calc", "hang"))
        await until(lambda: any(one.tool == "hang" for one in server.recorder.calls))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: server.recorder.calls[-1].cancelled)


async def test_large_results_are_cut_and_larger_ones_refused(server: McpServerUnderTest) -> None:
    async with opened_room() as room:
        room.put("calc", server.url)
        result = await room.call("calc", "big", '{"size": 100000}', max_result_bytes=2000)
        assert result.outcome is ToolOutcome.OK
        assert len(result.text.encode()) <= 2000
        assert "the result has 100000 bytes" in result.text
        result = await room.call("calc", "big", '{"size": 11000000}')
        assert (result.outcome, "more than 10 MiB" in result.text) == (ToolOutcome.ERROR, True)
        assert (await room.call("calc", "add", '{"a": 1, "b": 1}')).text == "2"


async def test_a_server_that_dies_in_the_middle_of_a_call(server: McpServerUnderTest) -> None:
    """The outcome is unknown; what is idempotent is tried again, and nothing else is; later calls connect again."""
    async with opened_room(list_ttl=3600) as room:
        room.put("calc", server.url)
        await room.listed(ServerTools("calc"))
        call = asyncio.create_task(room.call("calc", "hang"))
        await until(lambda: any(one.tool == "hang" for one in server.recorder.calls))
        await asyncio.to_thread(server.stop)
        assert (await call).outcome is ToolOutcome.UNKNOWN
        assert sum(one.tool == "hang" for one in server.recorder.calls) == 1

        assert (await room.call("calc", "add", '{"a": 1, "b": 1}')).outcome in (
            ToolOutcome.UNAVAILABLE,
            ToolOutcome.INVALID_ARGUMENTS,
        )
        listed = await room.listed(ServerTools("calc"))
        assert [one.server for one in listed.unavailable] == ["calc"]
        with pytest.raises(ToolServerUnavailable):
            await room.listed(ServerTools("calc", required=True))

        await asyncio.to_thread(server.start)
        async with asyncio.timeout(WAIT_SECONDS):
            while (await room.call("calc", "add", '{"a": 1, "b": 1}')).outcome is not ToolOutcome.OK:
                await asyncio.sleep(0.1)


async def test_a_call_is_repeated_after_a_restart_that_ended_the_session(server: McpServerUnderTest) -> None:
    """The server says that it knows no such session, and so has not carried the call out: even this one is repeated."""
    async with opened_room(list_ttl=3600) as room:
        room.put("calc", server.url)
        async with room.box(ServerTools("calc")) as box:
            await box.tools()
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            assert (await box.call("charge", '{"amount": 7}', call_id="c")).text == "charged 7"
        assert [one.arguments for one in server.recorder.calls] == [{"amount": 7}]


async def test_another_release_on_the_same_port_has_other_tools(server: McpServerUnderTest) -> None:
    def other_release(recorder: Recorder) -> MCPServer[Any]:
        made = default_tools(recorder)
        made.remove_tool("charge")
        made.add_tool(lambda: "new", name="renewed", description="It is new.")
        return made

    async with opened_room(list_ttl=3600) as room:
        room.put("calc", server.url)
        assert "charge" in {tool.name for tool in (await room.listed(ServerTools("calc"))).tools}
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start, other_release)
        assert (await room.call("calc", "charge", '{"amount": 7}')).outcome is not ToolOutcome.OK
        async with asyncio.timeout(WAIT_SECONDS):
            while "renewed" not in (names := {tool.name for tool in (await room.listed(ServerTools("calc"))).tools}):
                await asyncio.sleep(0.1)
        assert "charge" not in names
        assert (await room.call("calc", "renewed")).text == "new"


async def test_a_list_that_changes_is_read_again(server: McpServerUnderTest) -> None:
    async with opened_room(list_ttl=3600) as room:
        room.put("calc", server.url)
        assert "grown" not in {tool.name for tool in (await room.listed(ServerTools("calc"))).tools}
        # What listens for changes is opened beside the session.
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                await room.call("calc", "grow")
                await asyncio.sleep(0.1)
                if "grown" in {tool.name for tool in (await room.listed(ServerTools("calc"))).tools}:
                    break


async def test_turns_share_connections_which_are_closed_when_idle(server: McpServerUnderTest) -> None:
    async with opened_room(list_ttl=3600, idle_timeout=0.01) as room:
        room.put("calc", server.url)
        await asyncio.gather(*(room.call("calc", "add", '{"a": 1, "b": 1}') for _ in range(8)))
        assert room.registry.get_sample_value("parley_tool_connections") == 1

        def closed() -> bool:
            room.toolboxes.servers.clients.close_idle()
            return room.registry.get_sample_value("parley_tool_connections") == 0

        await until(closed)
        labels = {"kind": "server", "tool_server": "calc", "outcome": "ok"}
        assert room.registry.get_sample_value("gen_ai_execute_tool_duration_seconds_count", labels) == 8


async def test_a_tool_server_that_was_changed_is_called_where_it_is_now() -> None:
    with McpServerUnderTest() as first, McpServerUnderTest() as second:
        async with opened_room(list_ttl=3600) as room:
            for server in (first, second):
                room.put("calc", server.url)
                assert (await room.call("calc", "add", '{"a": 1, "b": 1}')).text == "2"
        assert (len(first.recorder.calls), len(second.recorder.calls)) == (1, 1)


async def test_what_the_operator_does_not_allow_is_denied_by_name() -> None:
    async with opened_room(egress_allow=("public",)) as room:
        room.put("inside", "http://127.0.0.1:9/mcp")
        listed = await room.listed(ServerTools("inside"))
        assert "are not allowed" in listed.unavailable[0].reason
        with pytest.raises(EgressDenied):
            await room.listed(ServerTools("inside", required=True))


async def test_a_server_that_is_down_costs_a_turn_no_wait_after_the_first() -> None:
    async with opened_room() as room:
        room.put("down", f"http://127.0.0.1:{free_port()}/mcp")
        first = await room.listed(ServerTools("down"))
        assert "can't be reached" in first.unavailable[0].reason
        assert (await room.listed(ServerTools("down"))).unavailable == first.unavailable
