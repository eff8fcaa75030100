"""Calls that are made without the SDK, once a server has answered one plainly: what is sent, and every way to end."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from chat_gateway.model.tools import ServerTools, ToolOutcome
from tests.servers.mcp_server import McpServerUnderTest
from tests.unit.chat_gateway.tools.opened import Room, opened_room
from tests.unit.chat_gateway.tools.raw_server import RawServer, raw_server, result, tool

WAIT_SECONDS = 20.0
FIRST_ID = 1 << 30


@pytest.fixture(params=[True, False], ids=["2026-07-28", "2025-11-25"])
def server(request: pytest.FixtureRequest) -> Iterator[McpServerUnderTest]:
    with McpServerUnderTest(modern=request.param, json_response=True) as running:
        yield running


@pytest.fixture
async def raw() -> AsyncIterator[RawServer]:
    async with raw_server() as running:
        yield running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def is_plain(request_id: object) -> bool:
    return isinstance(request_id, int) and request_id >= FIRST_ID


async def cancelled(server: McpServerUnderTest) -> None:
    """Waits until the server has cancelled its last call, where it can: in JSON it does not watch its connections."""
    if not server.modern:
        await until(lambda: server.recorder.calls[-1].cancelled)


async def warmed(room: Room, server: McpServerUnderTest, called: str) -> None:
    """Calls a tool once, so that the next call of it is made without the SDK."""
    room.put("calc", server.url)
    server.recorder.release.set()
    await room.call("calc", called)
    server.recorder.release.clear()
    server.recorder.calls.clear()


async def test_what_is_sent_is_what_the_sdk_sent_with_other_arguments(raw: RawServer) -> None:
    async with opened_room() as room:
        room.put("raw", raw.url)
        for arguments in ('{"a": 1}', '{"b": [2, {"c": null}], "big": 123456789012345678901234567890}'):
            assert (await room.call("raw", "t", arguments)).text == "fine"
    (first, first_headers), (second, second_headers) = (
        one for one in raw.requests if one[0].get("method") == "tools/call"
    )
    assert (is_plain(first["id"]), is_plain(second["id"])) == (False, True)
    assert second["params"].pop("arguments") == {"b": [2, {"c": None}], "big": 123456789012345678901234567890}
    assert first["params"].pop("arguments") == {"a": 1}
    first.pop("id"), second.pop("id")
    assert second == first
    for headers in (first_headers, second_headers):
        headers.pop("Content-Length")
    assert {name.lower(): text for name, text in second_headers.items()} == {
        name.lower(): text for name, text in first_headers.items()
    }


async def test_real_servers_of_both_eras_answer(server: McpServerUnderTest) -> None:
    async with opened_room() as room:
        room.put("calc", server.url)
        for number in range(3):
            got = await room.call("calc", "add", json.dumps({"a": number, "b": 1}))
            assert (got.text, got.outcome) == (str(number + 1), ToolOutcome.OK)
        assert [is_plain(call.request_id) for call in server.recorder.calls] == [False, True, True]
        assert {call.meta["parley.dev/call-id"] for call in server.recorder.calls} == {"t-1/call-1"}
        for _ in range(2):
            assert json.loads((await room.call("calc", "structured")).text) == {"answer": 42}
            assert "image/png" in (await room.call("calc", "picture")).text
            assert (await room.call("calc", "fail")).outcome is ToolOutcome.ERROR
            assert (await room.call("calc", "add", '{"a": "x"}')).outcome is ToolOutcome.ERROR


async def test_a_hanging_call_is_cut_and_cancelled_at_the_server(server: McpServerUnderTest) -> None:
    async with opened_room(list_ttl=3600) as room:
        await warmed(room, server, "hang")
        for seconds in (0.3, 1.0, 4.0, 40.0):  # on a busy machine it may be cut before it has begun at the server
            got = await room.call("calc", "hang", seconds=seconds)
            assert got.outcome is ToolOutcome.TIMEOUT
            if any(one.tool == "hang" for one in server.recorder.calls):
                break
        await cancelled(server)
        assert is_plain(server.recorder.calls[-1].request_id)
        assert (await room.call("calc", "add", '{"a": 1, "b": 1}')).text == "2"


async def test_a_caller_that_goes_cancels_the_call_at_the_server(server: McpServerUnderTest) -> None:
    async with opened_room(list_ttl=3600) as room:
        await warmed(room, server, "hang")
        call = asyncio.create_task(room.call("calc", "hang"))
        await until(lambda: bool(server.recorder.calls))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await cancelled(server)
        assert is_plain(server.recorder.calls[-1].request_id)


async def test_a_server_that_dies_in_the_middle_of_a_call(server: McpServerUnderTest) -> None:
    async with opened_room(list_ttl=3600) as room:
        await warmed(room, server, "hang")
        call = asyncio.create_task(room.call("calc", "hang"))
        await until(lambda: bool(server.recorder.calls))
        await asyncio.to_thread(server.stop)
        assert (await call).outcome is ToolOutcome.UNKNOWN
        assert [is_plain(one.request_id) for one in server.recorder.calls] == [True]


async def test_a_call_is_repeated_after_a_restart_that_ended_the_session(server: McpServerUnderTest) -> None:
    async with opened_room(list_ttl=3600) as room:
        room.put("calc", server.url)
        async with room.box(ServerTools("calc")) as box:
            await box.call("charge", '{"amount": 6}', call_id="c")
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            assert (await box.call("charge", '{"amount": 7}', call_id="d")).text == "charged 7"
        assert [one.arguments for one in server.recorder.calls] == [{"amount": 6}, {"amount": 7}]


async def test_a_result_over_the_bound_is_refused(server: McpServerUnderTest) -> None:
    async with opened_room(list_ttl=3600) as room:
        room.put("calc", server.url)
        for _ in range(2):
            assert (await room.call("calc", "big", '{"size": 10}')).outcome is ToolOutcome.OK
        got = await room.call("calc", "big", '{"size": 11000000}')
        assert (got.outcome, "more than 10 MiB" in got.text) == (ToolOutcome.ERROR, True)


@pytest.mark.parametrize("events", ["all", "none"])
async def test_an_answer_as_a_stream_is_left_to_the_sdk(raw: RawServer, events: str) -> None:
    """Also one that comes to a call which was made without it, with what the server says and asks in between."""

    async def streaming(request: web.BaseRequest, message: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        info = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "working"}}
        ping = {"jsonrpc": "2.0", "id": "p-1", "method": "ping"}
        value = {"content": [{"type": "text", "text": "streamed"}]}
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": value}
        for event in (info, ping, answer) if events == "all" else ():
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        return response

    async with opened_room(list_ttl=3600) as room:
        room.put("raw", raw.url)
        await room.call("raw", "t")
        raw.calling = streaming
        for _ in range(2):
            got = await room.call("raw", "t")
            expected = ("streamed", ToolOutcome.OK) if events == "all" else (got.text, ToolOutcome.UNKNOWN)
            assert (got.text, got.outcome) == expected
        calls = [message for message, _ in raw.requests if message.get("method") == "tools/call"]
        assert [is_plain(message["id"]) for message in calls] == [False, True, False]
        if events == "all":
            assert any(message.get("id") == "p-1" and "result" in message for message, _ in raw.requests)


async def test_another_answer_s_id_is_not_this_call_s_answer(raw: RawServer) -> None:
    async def mistaken(request: web.BaseRequest, message: dict[str, Any]) -> web.StreamResponse:
        return result({"id": message["id"] - 1}, {"content": [{"type": "text", "text": "somebody else's"}]})

    async with opened_room(list_ttl=3600) as room:
        room.put("raw", raw.url)
        await room.call("raw", "t")
        raw.calling = mistaken
        got = await room.call("raw", "t", seconds=1.0)
        assert "somebody" not in got.text
        assert got.outcome is not ToolOutcome.OK


async def test_a_list_that_is_read_again_is_learned_again(raw: RawServer) -> None:
    async with opened_room(list_ttl=0) as room:
        room.put("raw", raw.url)
        raw.tools = [tool(), tool("u")]
        for called in ("t", "u", "t"):
            assert (await room.call("raw", called)).text == "fine"
    calls = [message for message, _ in raw.requests if message.get("method") == "tools/call"]
    assert [is_plain(message["id"]) for message in calls] == [False, False, False]
