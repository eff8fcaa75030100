"""Agents elsewhere as tools: over JSON-RPC and REST, streamed and polled, and what they may do wrong."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from chat_gateway.model.tool_servers import A2aAgent, BearerAuth
from chat_gateway.model.tools import ServerTools, ToolOutcome
from chat_gateway.tools.a2a import client
from chat_gateway.tools.a2a.answers import RemoteTask
from tests.unit.chat_gateway.tools.opened import Room, opened_room

DONE = {"state": "TASK_STATE_COMPLETED"}
WORKING = {"state": "TASK_STATE_WORKING"}


def task(status: dict[str, Any], *texts: str, **fields: Any) -> dict[str, Any]:
    artifacts = [{"artifactId": "a", "parts": [{"text": text} for text in texts]}] if texts else []
    return {"id": "t/1", "contextId": "c-1", "status": status, "artifacts": artifacts, **fields}


class Elsewhere:
    """An agent that records what it is asked and answers as it is told, by operation."""

    def __init__(self, binding: str = "JSONRPC", *, streaming: bool = False) -> None:
        self.binding = binding
        self.streaming = streaming
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, list[Any]] = {}
        self.card: dict[str, Any] = {}
        self.url = ""
        self.cancelled = asyncio.Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Elsewhere"]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/agent"  # type: ignore[attr-defined]
        interface = {"url": self.url, "protocolBinding": self.binding, "protocolVersion": "1.0"}
        self.card = {
            "name": "Expert",
            "description": "Knows kettles.",
            "skills": [{"id": "k", "name": "kettles", "description": "Repairs kettles."}],
            "supportedInterfaces": [interface],
            "capabilities": {"streaming": self.streaming},
        }
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        if request.path.endswith("/.well-known/agent-card.json"):
            return web.json_response(self.card)
        body = await request.json() if request.can_read_body else {}
        rest = {"message:send": "SendMessage", "message:stream": "SendStreamingMessage"}
        if self.binding == "JSONRPC":
            operation, params = body["method"], body["params"]
        else:
            last = request.path.rpartition("/")[2]
            operation = rest.get(last, "CancelTask" if last.endswith(":cancel") else "GetTask")
            params = {**body, "path": request.raw_path}
        self.asked.append((operation, params))
        if operation == "CancelTask":
            self.cancelled.set()
        answers = self.answers.get(operation, [])
        answer = answers.pop(0) if len(answers) > 1 else answers[0] if answers else {}
        if callable(answer):
            answer = await answer(params)
        if operation == "SendStreamingMessage":
            return await self._stream(request, answer)
        return web.json_response(self._wrapped(answer))

    async def _stream(self, request: web.Request, events: list[Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            if event is None:
                await asyncio.sleep(3600)
            if event == "break" and request.transport is not None:
                request.transport.abort()
                break
            await response.write(b"data: " + json.dumps(self._wrapped(event)).encode() + b"\n\n")
        return response

    def _wrapped(self, answer: Any) -> Any:
        if isinstance(answer, dict) and "error" in answer:
            return answer
        return {"jsonrpc": "2.0", "id": 1, "result": answer} if self.binding == "JSONRPC" else answer


@asynccontextmanager
async def asking(agent: Elsewhere, **config: Any) -> AsyncIterator[Room]:
    async with agent.serving(), opened_room(**config) as room:
        room.put("expert", A2aAgent(agent.url, {"X-Team": "blue"}))
        yield room


SAID = '{"message": "what is it?"}'


@pytest.fixture(params=["JSONRPC", "HTTP+JSON"])
def agent(request: pytest.FixtureRequest) -> Elsewhere:
    return Elsewhere(request.param)


@pytest.fixture(params=["JSONRPC", "HTTP+JSON"])
def streaming(request: pytest.FixtureRequest) -> Elsewhere:
    return Elsewhere(request.param, streaming=True)


async def test_the_card_is_the_tool(agent: Elsewhere) -> None:
    async with asking(agent) as room:
        [tool] = (await room.listed(ServerTools("expert"))).tools
    assert tool.name == "expert"
    for said in ("Expert", "Knows kettles.", "Repairs kettles."):
        assert said in tool.description
    assert tool.parameters["required"] == ["message"]
    assert agent.headers[0]["X-Team"] == "blue"
    assert agent.headers[0]["A2A-Version"] == "1.0"


async def test_a_task_is_polled_to_its_end(agent: Elsewhere) -> None:
    agent.answers = {
        "SendMessage": [{"task": task(WORKING)}],
        "GetTask": [task(WORKING), task(DONE, "A ", "kettle.")],
    }
    async with asking(agent) as room:
        result = await room.call("expert", "expert", SAID)
    assert (result.outcome, result.text) == (ToolOutcome.OK, "A kettle.")
    said = agent.asked[0][1]
    assert said["message"]["parts"] == [{"text": "what is it?"}]
    assert said["configuration"]["returnImmediately"] is True
    assert [operation for operation, _ in agent.asked] == ["SendMessage", "GetTask", "GetTask"]
    if agent.binding == "HTTP+JSON":
        assert agent.asked[1][1]["path"].endswith("/tasks/t%2F1")


async def test_a_call_carries_the_trace_that_it_is_part_of(agent: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.traces.outgoing", lambda: (("traceparent", "00-of-this-call"),))
    agent.answers = {"SendMessage": [{"task": task({"state": "TASK_STATE_COMPLETED"}, "Descale it.")}]}
    async with asking(agent) as room:
        assert (await room.call("expert", "expert", SAID)).text == "Descale it."
    assert agent.headers[-1]["traceparent"] == "00-of-this-call"


async def test_a_stream_is_put_together(streaming: Elsewhere) -> None:
    pieces = [
        {
            "artifactUpdate": {
                "taskId": "t/1",
                "artifact": {"artifactId": "a", "parts": [{"text": text}]},
                "append": late,
            }
        }
        for text, late in (("A ", False), ("kettle.", True))
    ]
    end = {"statusUpdate": {"taskId": "t/1", "status": DONE}}
    streaming.answers = {"SendStreamingMessage": [[{"task": task(WORKING)}, *pieces, end, None]]}
    async with asking(streaming) as room:
        result = await room.call("expert", "expert", SAID)
    assert (result.outcome, result.text) == (ToolOutcome.OK, "A kettle.")


async def test_a_stream_that_ends_early_is_polled_on(streaming: Elsewhere) -> None:
    streaming.answers = {"SendStreamingMessage": [[{"task": task(WORKING)}]], "GetTask": [task(DONE, "Late.")]}
    async with asking(streaming) as room:
        assert (await room.call("expert", "expert", SAID)).text == "Late."


async def test_a_stream_that_breaks_is_polled_on(streaming: Elsewhere) -> None:
    streaming.answers = {
        "SendStreamingMessage": [[{"task": task(WORKING)}, "break"]],
        "GetTask": [task(DONE, "Late.")],
    }
    async with asking(streaming) as room:
        result = await room.call("expert", "expert", SAID)
    assert (result.outcome, result.text) == (ToolOutcome.OK, "Late.")


async def test_what_is_said_of_other_tasks_does_not_count(streaming: Elsewhere) -> None:
    others = task(DONE, "Not yours.") | {"id": "other", "contextId": "c-other"}
    piece = {"taskId": "other", "artifact": {"artifactId": "a", "parts": [{"text": "Nor this."}]}}
    events = [
        {"task": task(WORKING)},
        {"task": others},
        {"artifactUpdate": piece},
        {"statusUpdate": {"taskId": "other", "status": DONE}},
        {"message": {"taskId": "other", "parts": [{"text": "Nor that."}]}},
        {"task": task(DONE, "Yours.")},
    ]
    streaming.answers = {"SendStreamingMessage": [events, [{"task": task(WORKING)}]], "GetTask": [others]}
    async with asking(streaming) as room:
        assert (await room.call("expert", "expert", SAID)).text == "Yours."
        result = await room.call("expert", "expert", SAID)
    assert (result.outcome, "another task" in result.text) == (ToolOutcome.ERROR, True)
    assert [params["message"]["contextId"] for operation, params in streaming.asked if "message" in params][1] == "c-1"


async def test_a_task_has_all_of_its_artifacts(agent: Elsewhere) -> None:
    """Those of an earlier answer are not kept beside them, whatever they are called."""
    early = task(WORKING, "Draft.")
    early["artifacts"][0]["artifactId"] = "draft"
    agent.answers = {"SendMessage": [{"task": early}], "GetTask": [early, task({"state": "completed"}, "Done.")]}
    async with asking(agent) as room:
        assert (await room.call("expert", "expert", SAID)).text == "Done."


async def test_the_tenant_of_a_card_is_one_part_of_the_path() -> None:
    agent = Elsewhere("HTTP+JSON")
    agent.answers = {"SendMessage": [{"task": task(WORKING)}], "GetTask": [task(DONE, "Done.")]}
    async with asking(agent) as room:
        agent.card["supportedInterfaces"][0] |= {"tenant": "../../admin?x=", "protocolBinding": "http+json"}
        assert (await room.call("expert", "expert", SAID)).text == "Done."
    [(_, asked)] = [one for one in agent.asked if one[0] == "GetTask"]
    assert asked["path"] == "/agent/..%2F..%2Fadmin%3Fx%3D/tasks/t%2F1"


async def test_a_message_alone_is_an_answer(agent: Elsewhere) -> None:
    agent.answers = {"SendMessage": [{"message": {"parts": [{"text": "Yes."}, {"data": {"n": 1}}]}}]}
    async with asking(agent) as room:
        assert (await room.call("expert", "expert", SAID)).text == 'Yes.\n{"n": 1}'


async def test_an_agent_that_asks_back_is_answered_by_the_tasks_id(agent: Elsewhere) -> None:
    asks = {"state": "TASK_STATE_INPUT_REQUIRED", "message": {"parts": [{"text": "Which one?"}]}}
    agent.answers = {"SendMessage": [{"task": task(asks)}, {"task": task(DONE, "That.")}]}
    async with asking(agent) as room:
        result = await room.call("expert", "expert", SAID)
        assert "Which one?" in result.text
        assert "t/1" in result.text
        done = await room.call("expert", "expert", '{"message": "the red one", "task_id": "t/1"}')
    assert done.text == "That."
    assert agent.asked[1][1]["message"]["taskId"] == "t/1"
    assert "contextId" not in agent.asked[1][1]["message"]


@pytest.mark.parametrize("state", ["FAILED", "REJECTED", "CANCELED", "AUTH_REQUIRED", "SOMETHING_NEW"])
async def test_what_did_not_go_well_is_an_error_for_the_model(state: str) -> None:
    agent = Elsewhere(streaming=True)
    ended = {"state": f"TASK_STATE_{state}", "message": {"parts": [{"text": "Because."}]}}
    agent.answers = {"SendStreamingMessage": [[{"task": task(ended)}]], "GetTask": [task(ended)]}
    async with asking(agent) as room:
        result = await room.call("expert", "expert", SAID, seconds=1.5 if state == "SOMETHING_NEW" else 60)
    assert result.outcome is not ToolOutcome.OK
    assert "Because." in result.text or state == "SOMETHING_NEW"


async def test_a_call_that_is_given_up_is_cancelled_there(streaming: Elsewhere) -> None:
    streaming.answers = {"SendStreamingMessage": [[{"task": task(WORKING)}, None]]}
    async with asking(streaming) as room:
        for seconds in (1.0, 10.0, 40.0):  # on a busy machine it may be given up before the task is known
            result = await room.call("expert", "expert", SAID, seconds=seconds)
            assert result.outcome is ToolOutcome.TIMEOUT
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await streaming.cancelled.wait()
                    break
        assert streaming.cancelled.is_set()
        asked = len([one for one in streaming.asked if one[0] == "SendStreamingMessage"])
        streaming.cancelled.clear()
        call = asyncio.create_task(room.call("expert", "expert", SAID))
        while len([one for one in streaming.asked if one[0] == "SendStreamingMessage"]) == asked:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        call.cancel()
        async with asyncio.timeout(60):
            await streaming.cancelled.wait()


async def test_calls_of_a_session_share_a_context_that_the_agent_may_name(agent: Elsewhere) -> None:
    agent.answers = {"SendMessage": [{"task": task(DONE, "x")}]}
    async with asking(agent) as room:
        for _ in range(2):
            await room.call("expert", "expert", SAID)
    first, second = (params["message"]["contextId"] for _, params in agent.asked)
    assert "s-1" not in first
    assert second == "c-1"  # as the agent named it


async def test_an_agent_that_refuses_the_context_names_one() -> None:
    agent = Elsewhere()
    refused = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "unknown context"}}
    agent.answers = {"SendMessage": [refused, {"task": task(DONE, "x")}]}
    async with asking(agent) as room:
        assert (await room.call("expert", "expert", SAID)).text == "x"
    assert ["contextId" in params["message"] for _, params in agent.asked] == [True, False]


async def test_errors_and_excess_are_results(streaming: Elsewhere) -> None:
    flood = {"artifactUpdate": {"artifact": {"artifactId": "a", "parts": [{"text": "x" * 900_000}]}, "append": True}}
    failure = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "broken"}}
    streaming.answers = {"SendStreamingMessage": [[{"task": task(WORKING)}, *[flood] * 13, None], [failure]]}
    async with asking(streaming) as room:
        result = await room.call("expert", "expert", SAID)
        assert (result.outcome, "more than 10 MiB" in result.text) == (ToolOutcome.ERROR, True)
        result = await room.call("expert", "expert", SAID)
        assert (result.outcome, "broken" in result.text) == (ToolOutcome.ERROR, True)
        for wrong in ("{}", '{"message": 1}', '{"message": ""}'):
            assert (await room.call("expert", "expert", wrong)).outcome is ToolOutcome.INVALID_ARGUMENTS


UNREADABLE = [b'{"name": "\xff"}', b"[" * 100_000, b"[" + b"{}," * 100_000 + b"{}]", b'{"a": 1e999}', b"no JSON"]


@pytest.mark.parametrize("body", UNREADABLE)
async def test_what_is_no_json_or_too_wide_is_an_error_of_the_agents(agent: Elsewhere, body: bytes) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and not shown:
            return web.json_response(agent.card)
        return web.Response(body=body, content_type="application/json")

    agent._serve = answer  # type: ignore[method-assign]
    shown = ""
    async with asking(agent) as room:
        result = await room.call("expert", "expert", SAID)
        assert (result.outcome, result.text) == (ToolOutcome.ERROR, "the agent answered with an error: status 200")
        shown = "nothing"
        room.put("expert", A2aAgent(agent.url, {"X-Team": "red"}))
        listed = await room.listed(ServerTools("expert"))
    assert "has no agent card that can be read" in listed.unavailable[0].reason


def test_ids_without_end_are_not_kept() -> None:
    task_elsewhere = RemoteTask()
    task_elsewhere.take({"task": {"id": "t" * 10_000, "contextId": "c" * 10_000, "status": WORKING}})
    assert (task_elsewhere.id, task_elsewhere.context_id) == ("", "")


def test_pieces_of_an_artifact_take_linear_time() -> None:
    one = {"artifactUpdate": {"append": True, "artifact": {"artifactId": "a", "parts": [{"text": "x"}]}}}
    task_elsewhere, begun = RemoteTask(), time.process_time()
    for _ in range(60_000):
        task_elsewhere.take(one)
    assert time.process_time() - begun < 5.0
    task_elsewhere.take({"statusUpdate": {"status": DONE}})
    assert task_elsewhere.result().text == "x" * 60_000


async def test_a_card_that_names_another_origin_gets_no_credentials() -> None:
    agent, other = Elsewhere(), Elsewhere()
    async with asking(agent) as room, other.serving():
        agent.card["supportedInterfaces"][0]["url"] = other.url
        room.put("expert", A2aAgent(agent.url))
        listed = await room.listed(ServerTools("expert"))
        assert [one.server for one in listed.unavailable] == ["expert"]
        assert "card" in listed.unavailable[0].reason
        agent.card["supportedInterfaces"] = "none"
        assert (await room.listed(ServerTools("expert"))).unavailable
    assert not other.asked


async def test_an_agent_that_shows_no_card_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_CARD_PAUSE", 600.0)
    agent, asked = Elsewhere(), list[str]()

    async def hang(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        await asyncio.sleep(3600)
        return web.Response()

    agent._serve = hang  # type: ignore[method-assign]
    async with asking(agent, connect_timeout=1.0) as room:
        listed = [await room.listed(ServerTools("expert")) for _ in range(2)]
    assert [one.unavailable[0].reason for one in listed] == ["did not show its agent card in time"] * len(asked) * 2


async def test_secrets_are_sent_and_never_shown(tmp_path: Any) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "key").write_text("very-secret-key")
    agent = Elsewhere()
    agent.answers = {"SendMessage": [{"task": task(DONE, "you sent very-secret-key")}]}
    async with asking(agent, secrets_dir=str(tmp_path)) as room:
        room.put("expert", A2aAgent(agent.url), BearerAuth("key"))
        result = await room.call("expert", "expert", SAID)
    assert "very-secret-key" not in result.text
    assert {one.get("Authorization") for one in agent.headers} == {"Bearer very-secret-key"}


async def test_an_agent_that_the_operator_did_not_allow_is_not_asked() -> None:
    agent = Elsewhere()
    async with agent.serving(), opened_room(egress_allow=("public",)) as room:
        room.put("expert", A2aAgent(agent.url))
        assert (await room.listed(ServerTools("expert"))).unavailable
    assert not agent.headers
