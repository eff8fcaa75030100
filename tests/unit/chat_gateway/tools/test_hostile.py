"""MCP servers that break the protocol, or mean harm: bounds hold, turns go on, and no secret is seen anywhere."""

import asyncio
import base64
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from chat_gateway.model.tool_servers import BearerAuth
from chat_gateway.model.tools import ServerTools, ToolOutcome
from chat_gateway.tools.mcp_http import MAX_VALUES
from chat_gateway.tools.toolbox import MAX_TOOLS
from servicekit import traces
from tests.servers.otlp_receiver import OtlpReceiver
from tests.unit.chat_gateway.tools.opened import Room, opened_room
from tests.unit.chat_gateway.tools.raw_server import Answer, RawServer, raw_server, result, tool

SECRET = "planted-S3cret/with+odd&characters"


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server() as running:
        yield running


@pytest.fixture
async def room(server: RawServer) -> AsyncIterator[Room]:
    async with opened_room(list_ttl=3600, connect_timeout=30) as opened:
        opened.put("raw", server.url)
        yield opened


@pytest.fixture(params=["by the SDK", "without the SDK"])
async def calling(server: RawServer, room: Room, request: pytest.FixtureRequest) -> Room:
    """The first call of a tool is made by the SDK; those that follow a plain answer are made without it."""
    if request.param == "without the SDK":
        await room.call("raw", "t")
    return room


def text_response(text: str, content_type: str = "application/json") -> Answer:
    async def answer(request: web.BaseRequest, message: dict[str, Any]) -> web.StreamResponse:
        return web.Response(text=text.replace("ID", str(message["id"])), content_type=content_type)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        text_response('{"jsonrpc": "2.0", "id": ID, "result": {"content": [{"type": "te'),
        text_response('{"jsonrpc": "2.0", "id": ID, "result": {"content": "none"}}'),
        text_response('{"jsonrpc": "2.0", "id": ID, "result": {"content": [{"type": "hologram"}]}}'),
        text_response('{"jsonrpc": "2.0", "id": ID, "result": []}'),
        text_response('{"jsonrpc": "2.0", "id": ID, "result": ' + "[" * 50_000 + "]" * 50_000 + "}"),
        text_response("[]"),
        text_response(""),
        text_response("<html>", "text/html"),
        text_response("data: nonsense\n\n", "text/event-stream"),
        text_response("id: 1\nretry: 0\n\n", "text/event-stream"),
    ],
)
async def test_answers_that_are_no_mcp_are_errors_of_the_call(server: RawServer, calling: Room, answer: Answer) -> None:
    server.calling = answer
    got = await calling.call("raw", "t", seconds=10)
    assert got.outcome in (ToolOutcome.ERROR, ToolOutcome.UNKNOWN), got
    server.calling = server._call
    assert (await calling.call("raw", "t")).text == "fine"


async def test_an_endless_stream_is_cut(server: RawServer, calling: Room) -> None:
    async def endless(request: web.BaseRequest, message: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        event = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 60_000}}
        while True:
            await response.write(f"data: {json.dumps(event)}\n\n".encode())

    server.calling = endless
    got = await calling.call("raw", "t", seconds=30)
    assert got.outcome is ToolOutcome.ERROR
    assert "more than 10 MiB" in got.text


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(("values", "outcome"), [(MAX_VALUES - 20, ToolOutcome.OK), (MAX_VALUES, ToolOutcome.ERROR)])
async def test_a_wide_answer_is_refused_before_it_is_read(
    server: RawServer, calling: Room, content_type: str, values: int, outcome: ToolOutcome
) -> None:
    content = f'[{{"type": "text", "text": "fine {"," * MAX_VALUES}"}}]'
    wide = f'{{"list": [{",".join(["[]"] * (values // 2))}]}}'
    whole = f'{{"jsonrpc": "2.0", "id": ID, "result": {{"content": {content}, "structuredContent": {wide}}}}}'
    server.calling = text_response(f"data: {whole}\n\n" if "event" in content_type else whole, content_type)
    got = await calling.call("raw", "t", seconds=30)
    assert got.outcome is outcome, got
    if outcome is ToolOutcome.ERROR:
        assert f"more than {MAX_VALUES} values" in got.text


@pytest.mark.slow
async def test_a_flood_of_notifications_outside_a_call_is_read_slowly(server: RawServer, room: Room) -> None:
    written, opened = 0, asyncio.Event()
    message = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 200}}
    piece = f"data: {json.dumps(message)}\n\n".encode() * 100
    piece += b'data: {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}\n\n'

    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        assert request.transport is not None
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        opened.set()
        while True:
            await response.write(piece)
            written += len(piece)

    server.unasked = flood
    async with asyncio.timeout(60):
        assert (await room.call("raw", "t")).text == "fine"
        await opened.wait()
        with pytest.raises(TimeoutError):  # some 1.2 MB are what sockets between them hold, and what is read at once
            async with asyncio.timeout(2):
                while written < 2_000_000:
                    await asyncio.sleep(0.05)
        calls = [await room.call("raw", "t") for _ in range(20)]
    assert {call.text for call in calls} == {"fine"}
    assert server.methods().count("tools/list") <= len(calls) + 2


@pytest.mark.slow
async def test_a_stream_of_notifications_that_ends_at_once_is_not_asked_for_again_and_again(
    server: RawServer, room: Room
) -> None:
    asked: list[float] = []

    async def ends(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(asyncio.get_running_loop().time())
        return web.Response(text="id: 1\nretry: 0\ndata:\n\n", content_type="text/event-stream")

    server.unasked = ends
    async with asyncio.timeout(60):
        assert (await room.call("raw", "t")).text == "fine"
        while len(asked) < 3:
            await asyncio.sleep(0.05)
    assert asked[2] - asked[0] > 1.5, "the server says 0 ms"


async def test_a_session_that_is_refused_by_400_is_opened_again(server: RawServer, room: Room) -> None:
    """404 says that a session has ended; some servers say 400, and in words of their own."""

    async def has_none(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=405)

    async def refusing(request: web.BaseRequest, message: dict[str, Any]) -> web.StreamResponse:
        server.calling = server._call
        error = {"code": -32600, "message": "Bad Request: No valid session ID provided"}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error}, status=400)

    server.unasked = has_none
    for opened in (2, 3):  # by the SDK, then without it
        server.calling = refusing
        assert (await room.call("raw", "t")).text == "fine"
        assert server.methods().count("initialize") == opened


async def test_pages_without_end_and_ten_thousand_tools_are_bounded(server: RawServer, room: Room) -> None:
    async def endless_pages(request: web.BaseRequest, message: dict[str, Any]) -> web.StreamResponse:
        page = int((message.get("params") or {}).get("cursor", 0))
        tools = [tool(f"t{page}-{number}") for number in range(2000)]
        return result(message, {"tools": tools, "nextCursor": str(page + 1)})

    server.listing = endless_pages
    listed = await room.listed(ServerTools("raw"))
    assert len(listed.tools) == MAX_TOOLS
    assert "more tools than are used" in listed.unavailable[0].reason
    assert server.methods().count("tools/list") < 20
    (wanted,) = (await room.listed(ServerTools("raw", allow=frozenset({"t3-1999"})))).tools
    assert wanted.name == "t3-1999"


async def test_duplicates_and_hostile_texts_are_made_harmless(server: RawServer, room: Room) -> None:
    server.tools = [
        tool("same", description="first"),
        tool("same", description="second"),
        tool("a.b", description="x\x1b[2J\u202e\x00" + "y" * 1_000_000),
        tool("a b"),
        tool("é" * 300),
        tool("", description="no name"),
        tool(
            "odd", inputSchema={"type": "object", "properties": {"a": {"type": "string", "description": "z" * 200_000}}}
        ),
    ]
    tools = (await room.listed(ServerTools("raw"))).tools
    assert len(tools) == len({one.name for one in tools}) == 5
    for one in tools:
        assert 0 < len(one.name) <= 64
        assert one.name.replace("_", "").replace("-", "").isascii()
        assert len(one.description) <= 4096
        assert not {"\x1b", "\x00", "\u202e"} & set(one.description)
        assert len(json.dumps(dict(one.parameters))) < 70_000
    assert next(one for one in tools if one.name == "same").description == "first"


async def test_one_server_s_names_are_told_from_another_s(server: RawServer, room: Room) -> None:
    async with raw_server() as other:
        room.put("other", other.url)
        async with room.box(ServerTools("raw"), ServerTools("other")) as box:
            assert [one.name for one in (await box.tools()).tools] == ["raw__t", "other__t"]
            await box.call("other__t", "{}", call_id="c")
        assert (server.methods().count("tools/call"), other.methods().count("tools/call")) == (0, 1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503])
async def test_refusals_are_named_and_never_quoted(server: RawServer, calling: Room, status: int) -> None:
    async def refusing(request: web.BaseRequest, message: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=status, text="a page about internals")

    await calling.listed(ServerTools("raw"))
    server.calling = refusing
    got = await calling.call("raw", "t")
    assert got.outcome in (ToolOutcome.ERROR, ToolOutcome.UNKNOWN, ToolOutcome.UNAVAILABLE)
    assert "internals" not in got.text


def echoing(form: Callable[[str], str], where: str) -> Answer:
    async def answer(request: web.BaseRequest, message: dict[str, Any]) -> web.StreamResponse:
        shown = form(request.headers.get("Authorization", "").removeprefix("Bearer "))
        match where:
            case "error":
                error = {"code": -32000, "message": f"bad token {shown}", "data": shown}
                return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": error})
            case "invalid":
                return web.Response(
                    text='{"jsonrpc": "2.0", "id": 1, "oops": "' + shown, content_type="application/json"
                )
            case "wrong":
                return result(message, {"content": shown})
            case "status":
                return web.Response(status=500, text=shown, headers={"X-Echo": shown})
            case "redirect":
                return web.Response(status=302, headers={"Location": f"https://example.com/{shown}"})
        content = [{"type": "text", "text": shown}, {"type": "resource_link", "uri": "a://b", "name": shown}]
        return result(
            message, {"content": content, "structuredContent": {"token": shown}, "isError": where == "failed"}
        )

    return answer


FORMS: list[Callable[[str], str]] = [
    str,
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: json.dumps(text)[1:-1],
    lambda text: text.encode().hex(),
]


def seen(text: str) -> bool:
    """Whether the secret can be read from a text."""
    forms = [form(SECRET) for form in FORMS]
    return any(form in text for form in forms) or SECRET[:12] in text


async def test_a_planted_secret_is_in_no_output(
    server: RawServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results, errors, lists, logs of every level, metrics and traces are searched for it; only the server has it."""
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "key").write_text(SECRET)
    outputs: list[str] = []
    caplog.set_level(logging.DEBUG)
    with OtlpReceiver() as receiver:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_INSECURE": "true"}
        for name, text in environment.items():
            monkeypatch.setenv(name, text)
        with traces.exporting("test"), capture_logs() as logged:
            for list_ttl in (3600, 0):  # what is listed for every call is always called by the SDK
                async with opened_room(secrets_dir=str(tmp_path), list_ttl=list_ttl) as room:
                    room.put("raw", server.url, BearerAuth("key"))
                    server.calling = server._call
                    outputs.append(repr(await room.call("raw", "t")))
                    for where in ("result", "failed", "error", "invalid", "wrong", "status", "redirect"):
                        for form in FORMS:
                            server.calling = echoing(form, where)
                            with traces.span("execute_tool t"):
                                outputs.append(repr(await room.call("raw", "t", max_result_bytes=1024)))
                    outputs.append(generate_latest(room.registry).decode())
            async with opened_room(secrets_dir=str(tmp_path), list_ttl=0) as room:
                room.put("raw", server.url, BearerAuth("key"))
                await room.listed(ServerTools("raw"))
                for where in ("error", "invalid", "wrong", "status", "redirect"):
                    server.listing = echoing(str, where)
                    outputs.append(repr(await room.listed(ServerTools("raw"))))
                server.listing = server._list
                server.tools = [
                    tool(f"t-{SECRET}"),
                    tool("u", description=f"use {SECRET}", inputSchema={"type": "object", "title": SECRET}),
                ]
                outputs.append(repr(await room.listed(ServerTools("raw"))))
                assert "[secret]" in outputs[-1]
                outputs.append(generate_latest(room.registry).decode())
        outputs.append(json.dumps(logged, default=str))
        outputs += [record.getMessage() + str(record.exc_info) for record in caplog.records]
        outputs.append(repr(receiver.wait_for(bool)))
    assert any(SECRET in headers.get("Authorization", "") for _, headers in server.requests)
    assert [output for output in outputs if seen(output)] == []


async def test_a_call_carries_the_trace_that_it_is_part_of(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
        with traces.exporting("test"):
            async with opened_room() as room:
                room.put("raw", server.url)
                await room.listed(ServerTools("raw"))
                with traces.span("execute_tool t"):
                    trace, _ = traces.ids() or ("", "")
                    await room.call("raw", "t")
    message, headers = next(one for one in server.requests if one[0].get("method") == "tools/call")
    assert trace in message["params"]["_meta"]["traceparent"]
    assert trace in headers["traceparent"]


async def test_one_call_that_hangs_holds_up_no_other(server: RawServer, calling: Room) -> None:
    async def hanging(request: web.BaseRequest, message: dict[str, Any]) -> web.StreamResponse:
        if message["params"]["arguments"].get("hang"):
            await asyncio.sleep(60)
        return await server._call(request, message)

    server.calling = hanging
    hung = [asyncio.create_task(calling.call("raw", "t", '{"hang": true}', seconds=20)) for _ in range(20)]
    await asyncio.sleep(0)
    assert (await calling.call("raw", "t", seconds=15)).text == "fine"
    for one in hung:
        one.cancel()
    await asyncio.gather(*hung, return_exceptions=True)
    assert (await calling.call("raw", "t", seconds=15)).text == "fine"
