"""A fast OpenAI-compatible upstream that does what a test tells it, and remembers what it was asked.

It runs on a thread with an event loop of its own, so that tests may block theirs (the official clients, grpcurl).
"""

import asyncio
import base64
import json
import re
import struct
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from parley_cli.processes.ports import LOOPBACK
from tests.servers.ports import free_port

MODEL = "mock-model"
WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request is answered. Times are seconds."""

    delay: float = 0.0
    chunk_delay: float = 0.0
    text: str | None = None  # None: `echo:<number of messages>:<the last user message>`
    finish_reason: str = "stop"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # sent instead of any answer, with `status`
    chunks_before_cut: int | None = None  # the connection breaks after so many chunks
    hold: bool = False  # nothing is answered before `release`
    hold_after_chunks: int | None = None  # the stream stands still after so many chunks, until `release`
    tool_calls: tuple[tuple[str, str, str], ...] = ()  # (id, name, arguments as JSON text)
    reasoning: str = ""  # `reasoning_content`; streamed before the answer


def _text_of(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(content)


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """Vectors that tell the inputs apart: place and length, then zeros."""
    given = body["input"]
    inputs = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    size = body.get("dimensions", 4)
    vectors = [[float(place), float(len(one)), *[0.0] * (size - 2)] for place, one in enumerate(inputs)]
    coded = [base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() for vector in vectors]
    sent = coded if body.get("encoding_format") == "base64" else vectors
    data = [{"object": "embedding", "index": place, "embedding": one} for place, one in enumerate(sent)]
    usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def echo(messages: list[dict[str, Any]]) -> str:
    """Return the default answer: `echo:<n>:<last user text>`, n being the number of messages in the prompt."""
    last = next((_text_of(message["content"]) for message in reversed(messages) if message["role"] == "user"), "")
    return f"echo:{len(messages)}:{last}"


class MockModel:
    """The upstream. `script` queues behaviours, one per request; an empty queue means `default`."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.default = Behaviour()
        self.port = 0
        self.abandoned = 0
        self.running = 0
        self.max_running = 0
        self._script: deque[Behaviour] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mock-model", daemon=True)
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Base URL, `/v1` included."""
        return f"http://{LOOPBACK}:{self.port}/v1"

    @property
    def prompts(self) -> list[list[dict[str, Any]]]:
        """The messages of every completion request, in the order of arrival."""
        return [request["messages"] for request in self.requests]

    def script(self, *behaviours: Behaviour) -> None:
        """Answer the next requests so, one behaviour each."""
        self._script.extend(behaviours)

    def release(self) -> None:
        """Let every held request go on, and those to come."""
        self._loop.call_soon_threadsafe(self._released.set)

    def hold_again(self) -> None:
        """Have requests held anew after `release`."""
        self._loop.call_soon_threadsafe(self._released.clear)

    def reset(self) -> None:
        """Forget requests, script, default and counters; release what is held, then hold anew."""
        self.requests.clear()
        self.headers.clear()
        self._script.clear()
        self.default = Behaviour()
        self.abandoned = self.max_running = 0
        self.release()
        self.hold_again()

    def wait_for_requests(self, number: int, timeout: float = WAIT_SECONDS) -> None:
        """Block until at least so many requests have arrived."""
        deadline = time.monotonic() + timeout
        while len(self.requests) < number:
            assert time.monotonic() < deadline, f"{len(self.requests)} requests arrived, not {number}"
            time.sleep(0.005)

    async def received(self, number: int, timeout: float = WAIT_SECONDS) -> None:
        """As `wait_for_requests`, without blocking the test's event loop."""
        await asyncio.to_thread(self.wait_for_requests, number, timeout)

    def start(self) -> None:
        """Listen; after `stop`, again on the same port."""
        if not self._thread.is_alive():
            self._thread.start()
        self._call(self._listen())

    def stop(self) -> None:
        """Close the port and every connection, as an upstream that is down."""
        self._call(self._unlisten())

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)
        self._loop.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)

    async def _listen(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/embeddings", self._embed)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.05)
        await runner.setup()
        self.port = self.port or free_port()  # no port of its clients, who could have it while this is stopped
        await web.TCPSite(runner, LOOPBACK, self.port).start()
        self._runner = runner

    async def _unlisten(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "tests"}]})

    async def _embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        behaviour = self._script.popleft() if self._script else self.default
        if behaviour.status != 200:
            return web.Response(body=behaviour.body or b"", status=behaviour.status, headers=behaviour.headers)
        return web.json_response(_embeddings(body))

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        behaviour = self._script.popleft() if self._script else self.default
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            return await self._answer(request, body, behaviour)
        except (asyncio.CancelledError, ConnectionResetError):
            self.abandoned += 1
            raise
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any], behaviour: Behaviour) -> web.StreamResponse:
        if behaviour.hold:
            await self._released.wait()
        await asyncio.sleep(behaviour.delay)
        if behaviour.body is not None or behaviour.status != 200:
            error = json.dumps({"error": {"message": "mock error", "type": "mock", "param": None, "code": None}})
            answer = behaviour.body if behaviour.body is not None else error.encode()
            return web.Response(
                body=answer, status=behaviour.status, headers=behaviour.headers, content_type="application/json"
            )
        text = echo(body["messages"]) if behaviour.text is None else behaviour.text
        if body.get("stream"):
            return await self._stream(request, body, behaviour, text)
        if behaviour.chunks_before_cut is not None:
            _cut(request)
        return web.json_response(_completion(body, behaviour, text), headers=behaviour.headers)

    async def _stream(
        self, request: web.Request, body: dict[str, Any], behaviour: Behaviour, text: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **behaviour.headers})
        await response.prepare(request)
        number = 0
        async for chunk in _chunks(body, behaviour, text):
            if number == behaviour.hold_after_chunks:
                await self._released.wait()
            if number == behaviour.chunks_before_cut:
                _cut(request)
                return response
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            number += 1
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _cut(request: web.Request) -> None:
    """Break the connection without a word."""
    if request.transport is not None:
        request.transport.abort()


def _calls(behaviour: Behaviour) -> list[dict[str, Any]]:
    return [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for call_id, name, arguments in behaviour.tool_calls
    ]


def _usage(body: dict[str, Any], text: str) -> dict[str, int]:
    prompt = sum(len(_text_of(message.get("content")).split()) for message in body["messages"])
    answer = len(text.split())
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _finish_reason(behaviour: Behaviour) -> str:
    return "tool_calls" if behaviour.tool_calls else behaviour.finish_reason


def _completion(body: dict[str, Any], behaviour: Behaviour, text: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if behaviour.tool_calls:
        message |= {"content": behaviour.text, "tool_calls": _calls(behaviour)}
    if behaviour.reasoning:
        message["reasoning_content"] = behaviour.reasoning
    return {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body.get("model", MODEL),
        "choices": [{"index": 0, "message": message, "finish_reason": _finish_reason(behaviour)}],
        "usage": _usage(body, text),
    }


async def _chunks(body: dict[str, Any], behaviour: Behaviour, text: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the chunks of a streamed answer: the role, the text word by word, tool calls, the end, the usage."""
    head = {
        "id": "chatcmpl-mock",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": body.get("model", MODEL),
    }
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if behaviour.reasoning:
        deltas.append({"reasoning_content": behaviour.reasoning})
    if behaviour.tool_calls:
        deltas += [{"tool_calls": [{"index": n, **call}]} for n, call in enumerate(_calls(behaviour))]
    else:
        deltas += [{"content": piece} for piece in re.findall(r"\s*\S+\s*", text)]
    for number, delta in enumerate(deltas):
        if number:
            await asyncio.sleep(behaviour.chunk_delay)
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": _finish_reason(behaviour)}]}
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": _usage(body, text)}
