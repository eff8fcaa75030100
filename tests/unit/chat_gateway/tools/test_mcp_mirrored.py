"""Arguments that a tool asks for as headers, too (SEP-2243), in calls that are made by the SDK and without it."""

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from mcp.server.mcpserver import Context, MCPServer
from pydantic import Field

from chat_gateway.model.tools import ServerTools, ToolOutcome
from tests.servers.mcp_server import McpServerUnderTest, Recorder
from tests.unit.chat_gateway.tools.opened import opened_room

Made = Callable[[Recorder], MCPServer[Any]]


def mirroring(region: str) -> Made:
    """Returns a server with a tool that asks for two of its arguments, one of them under this name."""

    def make(recorder: Recorder) -> MCPServer[Any]:
        server: MCPServer[Any] = MCPServer("mirroring", version="1", log_level="CRITICAL")

        @server.tool(structured_output=False)
        async def route(
            context: Context[Any, Any],
            text: str = "",
            where: Annotated[str, Field(json_schema_extra={"x-mcp-header": region})] = "",
            urgent: Annotated[bool, Field(json_schema_extra={"x-mcp-header": "Urgent"})] = False,
        ) -> str:
            recorder.note(context, "route", text=text, where=where, urgent=urgent)
            return "routed"

        return server

    return make


def mirrored(server: McpServerUnderTest) -> list[dict[str, str]]:
    """Returns the headers of arguments of each call."""
    return [
        {name: text for name, text in call.headers.items() if name.startswith("mcp-param-")}
        for call in server.recorder.calls
    ]


@pytest.mark.parametrize("json_response", [True, False], ids=["json", "streams"])
@pytest.mark.parametrize("modern", [True, False], ids=["2026-07-28", "2025-11-25"])
async def test_arguments_are_sent_as_the_headers_that_a_tool_asks_for(modern: bool, json_response: bool) -> None:
    calls: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"text": "a"}, {}),
        ({"where": "eu"}, {"mcp-param-region": "eu"}),
        ({"where": "köln", "urgent": True}, {"mcp-param-region": "=?base64?a8O2bG4=?=", "mcp-param-urgent": "true"}),
        ({"text": "b"}, {}),
    ]
    with McpServerUnderTest(mirroring("Region"), modern=modern, json_response=json_response) as server:
        async with opened_room() as room:
            room.put("routes", server.url)
            for arguments, _ in calls:
                assert (await room.call("routes", "route", json.dumps(arguments))).text == "routed"
        assert mirrored(server) == [headers if modern else {} for _, headers in calls]


async def test_a_tool_that_asks_for_other_headers_now_is_listed_and_called_again() -> None:
    with McpServerUnderTest(mirroring("Region")) as server:
        async with opened_room(list_ttl=3600) as room:
            room.put("routes", server.url)
            async with room.box(ServerTools("routes")) as box:
                await box.tools()
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start, mirroring("Zone"))
                result = await box.call("route", '{"where": "eu"}', call_id="c")
            assert (result.text, result.outcome) == ("routed", ToolOutcome.OK)
        assert mirrored(server) == [{"mcp-param-zone": "eu"}]
