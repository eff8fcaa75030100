"""A tool server is tried out: connected to anew, its tools listed, or what keeps them from being had."""

import asyncio

import pytest

from chat_gateway.model.not_found import ToolServerNotFound
from chat_gateway.model.tool_servers import BearerAuth, HttpCall, HttpService
from chat_gateway.model.tools import ServerTools
from chat_gateway.tools import mcp_session
from chat_gateway.tools.probe import ToolServerProbe
from tests.servers.mcp_server import McpServerUnderTest
from tests.servers.ports import free_port
from tests.unit.chat_gateway.tools.opened import opened_room


async def test_tools_are_listed_over_a_connection_of_its_own() -> None:
    with McpServerUnderTest(modern=True) as server:
        async with opened_room() as room:
            room.put("calc", server.url)
            probe = ToolServerProbe(room.servers, room.toolboxes.servers)
            assert (await room.listed(ServerTools("calc"))).unavailable == ()
            outcome = await probe.test("default", "calc")
            assert outcome.problem == ""
            assert {tool.name: tool.idempotent for tool in outcome.tools}["add"] is True
            assert len(room.toolboxes.servers.clients) == 1  # that of the turn
            before = len(server.recorder.requests)
            await probe.test("default", "calc")
            assert len(server.recorder.requests) > before  # asked again, whatever is known


async def test_what_keeps_tools_from_being_had_is_said() -> None:
    async with opened_room() as room:
        room.put("gone", f"http://127.0.0.1:{free_port()}/mcp")
        room.put("secret", "http://127.0.0.1:1/mcp", BearerAuth("missing-one"))
        room.put("denied", "http://10.0.0.1/mcp")
        calls = (HttpCall("get", "Gets.", "GET", "/a"),)
        room.put("http", HttpService("http://127.0.0.1:1", calls=calls))
        probe = ToolServerProbe(room.servers, room.toolboxes.servers)
        assert (await probe.test("default", "gone")).problem
        assert "missing-one" in (await probe.test("default", "secret")).problem
        assert "10.0.0.1" in (await probe.test("default", "denied")).problem
        assert [tool.name for tool in (await probe.test("default", "http")).tools] == ["get"]
        with pytest.raises(ToolServerNotFound):
            await probe.test("other", "http")


async def test_a_test_is_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # The patience with a session that is open is not for one that opens.
    monkeypatch.setattr(mcp_session, "_CLOSE_SECONDS", 600.0)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with opened_room() as room:
            room.put("silent", f"http://127.0.0.1:{port}/mcp")
            probe = ToolServerProbe(room.servers, room.toolboxes.servers, timeout=1.0)
            async with asyncio.timeout(60):
                assert "did not answer within 1 s" in (await probe.test("default", "silent")).problem
