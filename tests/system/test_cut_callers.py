"""What callers see of a gateway that stops before their turns have ended, over every protocol."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import grpc
import httpx
from a2a.types import a2a_pb2, a2a_pb2_grpc

from parley.chat.v1 import chat_service_pb2 as pb
from parley.chat.v1 import chat_service_pb2_grpc
from parley.session.v1 import message_pb2
from servicekit.rpc_status import from_rpc_error
from tests.servers.mock_model import Behaviour
from tests.servers.system import StartSystem, System

SAID = [{"role": "user", "content": "hi"}]
VERSION = {"A2A-Version": "1.0"}
WAIT_SECONDS = 60.0


class Callers:
    """Calls of one gateway that are under way; each of them comes to what its caller is told last."""

    def __init__(self, system: System, http: httpx.AsyncClient, channel: grpc.aio.Channel) -> None:
        self._system = system
        self._http = http
        self._chat = chat_service_pb2_grpc.ChatServiceStub(channel)
        self._a2a = a2a_pb2_grpc.A2AServiceStub(channel)
        self._running: dict[str, asyncio.Task[str]] = {}

    async def begin(self, name: str, call: Awaitable[str]) -> None:
        """Makes a call, and waits until it has reached the model."""
        asked = len(self._system.model.requests)
        self._running[name] = asyncio.ensure_future(call)
        await asyncio.to_thread(self._system.model.wait_for_requests, asked + 1)

    async def follow(self, name: str, call: Callable[[asyncio.Event], Awaitable[str]]) -> None:
        """Makes a call that is streamed, and waits until something has come."""
        heard = asyncio.Event()
        self._running[name] = asyncio.ensure_future(call(heard))
        async with asyncio.timeout(WAIT_SECONDS):
            await heard.wait()

    async def ends(self) -> dict[str, Any]:
        """Returns what each of them was told."""
        async with asyncio.timeout(WAIT_SECONDS):
            return dict(
                zip(self._running, await asyncio.gather(*self._running.values(), return_exceptions=True), strict=True)
            )

    async def post(self, path: str, **body: Any) -> str:
        answer = await self._http.post(path, json=body)
        return f"{answer.status_code} {answer.json()['error']['code']}"

    async def stream(self, path: str, heard: asyncio.Event | None = None, **body: Any) -> str:
        async with self._http.stream("POST", path, json=body | {"stream": True}) as answer:
            if answer.status_code != 200:  # it had not begun
                return f"{answer.status_code} {said(json.loads(await answer.aread()))}"
            return await last_of(answer.aiter_lines(), heard)

    async def events(self, completion: str, heard: asyncio.Event) -> str:
        async with self._http.stream("GET", f"/v1/chat/completions/{completion}/events") as answer:
            return await last_of(answer.aiter_lines(), heard)

    async def json_rpc(self, agent: str, method: str) -> str:
        message = {"messageId": uuid4().hex, "role": "ROLE_USER", "parts": [{"text": "hi"}]}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"message": message}}
        async with self._http.stream("POST", f"/a2a/{agent}", json=body, headers=VERSION) as answer:
            if answer.headers["content-type"].startswith("text/event-stream"):
                return await last_of(answer.aiter_lines())
            return said(json.loads(await answer.aread()))

    async def complete(self, **fields: Any) -> str:
        try:
            await self._chat.Complete(pb.CompleteRequest(input=turn_of(**fields)))
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).reason.lower()
        return "stored"

    async def stream_complete(self, **fields: Any) -> str:
        return await ended(self._chat.StreamComplete(pb.StreamCompleteRequest(input=turn_of(**fields))))

    async def watch_turn(self, watched: pb.WatchTurnRequest, heard: asyncio.Event) -> str:
        return await ended(self._chat.WatchTurn(watched), heard)

    async def send_message(self, agent: str) -> str:
        request = a2a_request(agent)
        answer = await self._a2a.SendMessage(request, metadata=(("a2a-version", "1.0"),))
        return a2a_pb2.TaskState.Name(answer.task.status.state)

    async def stream_message(self, agent: str) -> str:
        return await ended(self._a2a.SendStreamingMessage(a2a_request(agent), metadata=(("a2a-version", "1.0"),)))


def turn_of(**fields: Any) -> pb.TurnInput:
    message = message_pb2.Message(role=message_pb2.ROLE_USER, content="hi")
    return pb.TurnInput(messages=[message], session_id=uuid4().hex, **fields)


def a2a_request(agent: str) -> a2a_pb2.SendMessageRequest:
    parts = [a2a_pb2.Part(text="hi")]
    message = a2a_pb2.Message(message_id=uuid4().hex, role=a2a_pb2.ROLE_USER, parts=parts)
    return a2a_pb2.SendMessageRequest(tenant=agent, message=message)


async def ended(stream: Any, heard: asyncio.Event | None = None) -> str:
    """Returns what a gRPC stream ends with."""
    try:
        async for _ in stream:
            if heard is not None:
                heard.set()
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason.lower()
    return "ended"


async def last_of(lines: AsyncIterator[str], heard: asyncio.Event | None = None) -> str:
    """Returns what the last event of a stream says."""
    last = ""
    async for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            last = line.removeprefix("data: ")
            if heard is not None:
                heard.set()
    return said(json.loads(last))


def said(document: dict[str, Any]) -> str:
    """Returns what a JSON document says of an end: the code of its error, or how far its task is."""
    match document:
        case {"error": {"data": [{"reason": str(reason)}, *_]}}:
            return reason.lower()
        case {"error": {"code": str(code)}} | {"code": str(code)} | {"response": {"error": {"code": str(code)}}}:
            return code
        case {"result": {"task": {"status": {"state": str(state)}}}}:
            return state
    return json.dumps(document)


async def test_every_caller_is_told_what_became_of_its_turn(start_system: StartSystem) -> None:
    system = await asyncio.to_thread(
        start_system,
        gateways=2,
        gateway_env={"PARLEY_GATEWAY_DRAIN_TIMEOUT": "0.5", "PARLEY_GATEWAY_DRAIN_NOTICE": "0"},
    )
    await asyncio.to_thread(system.create_agent, "support")
    system.model.default = Behaviour(hold=True)
    served = system.gateways[0]
    async with (
        httpx.AsyncClient(base_url=served.http_url, timeout=WAIT_SECONDS, trust_env=False) as http,
        grpc.aio.insecure_channel(served.grpc_target) as channel,
    ):
        callers = Callers(system, http, channel)
        chat, responses = "/v1/chat/completions", "/v1/responses"
        asks, wants = {"model": "support", "messages": SAID}, {"model": "support", "input": "hi"}
        await callers.begin("chat", callers.post(chat, **asks))
        await callers.begin("chat, to be finished", callers.post(chat, **asks, on_disconnect="finish"))
        await callers.begin("chat stream", callers.stream(chat, **asks))
        await callers.begin("responses", callers.post(responses, **wants))
        await callers.begin("responses stream", callers.stream(responses, **wants))
        await callers.begin("gRPC", callers.complete(agent_id="support"))
        await callers.begin("gRPC stream", callers.stream_complete(agent_id="support"))
        resumable = callers.stream(chat, **asks, session_id="r", resumable=True)
        await callers.begin("resumable chat stream", resumable)
        await callers.begin("resumable gRPC stream", callers.stream_complete(agent_id="support", resumable=True))
        await callers.begin("A2A", callers.json_rpc("support", "SendMessage"))
        await callers.begin("A2A stream", callers.json_rpc("support", "SendStreamingMessage"))
        await callers.begin("A2A gRPC", callers.send_message("support"))
        await callers.begin("A2A gRPC stream", callers.stream_message("support"))
        system.model.script(*[Behaviour(hold_after_chunks=2)] * 4)
        await callers.follow("begun chat stream", lambda heard: callers.stream(chat, heard, **asks))
        await callers.follow("begun responses stream", lambda heard: callers.stream(responses, heard, **wants))
        more = {"session_id": "r2", "resumable": True}
        await callers.follow("begun resumable chat stream", lambda heard: callers.stream(chat, heard, **asks, **more))
        more = {"resumable": True}
        await callers.follow(
            "begun resumable responses stream", lambda heard: callers.stream(responses, heard, **wants, **more)
        )
        queued = (await http.post(chat, json=asks | {"background": True, "session_id": "b"})).json()["id"]
        turn_id, _, session_id = queued.removeprefix("chatcmpl-").partition(".")
        watched = pb.WatchTurnRequest(session_id=session_id, turn_id=turn_id)
        await callers.follow("watch", lambda heard: callers.events(queued, heard))
        await callers.follow("gRPC watch", lambda heard: callers.watch_turn(watched, heard))
        await asyncio.to_thread(served.stop)
        ends = await callers.ends()
    system.model.release()
    assert ends == {
        "chat": "503 draining",
        "chat, to be finished": "503 draining",
        "chat stream": "503 draining",
        "begun chat stream": "draining",
        "responses": "503 draining",
        "responses stream": "503 draining",
        "begun responses stream": "server_error",
        "gRPC": "draining",
        "gRPC stream": "draining",
        "resumable chat stream": "409 turn_handed_over",
        "begun resumable chat stream": "turn_handed_over",
        "begun resumable responses stream": "turn_handed_over",
        "resumable gRPC stream": "turn_handed_over",
        "A2A": "TASK_STATE_WORKING",
        "A2A stream": "turn_handed_over",
        "A2A gRPC": "TASK_STATE_WORKING",
        "A2A gRPC stream": "turn_handed_over",
        "watch": "draining",
        "gRPC watch": "draining",
    }
