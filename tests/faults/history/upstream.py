"""A model whose answers tell which history they were made from, and which fails as models do."""

import asyncio
import hashlib
import itertools
import json
import random
import time
from collections import Counter
from typing import Any

from aiohttp import web

from parley_cli.processes.ports import LOOPBACK
from tests.faults.history.records import Call, Message
from tests.faults.history.tool_server import GUARDED
from tests.faults.history.tooling import ASKED, CALL, WAITS, plain
from tests.servers.mock_model import MODEL

HANG_SECONDS = 30.0
HELPER = "helper"
"""The agent that is called as a tool, by the name that its tool has."""
MORE_STEPS = 0.3
MAX_CALLING_STEPS = 3


class RecordingModel:
    """An OpenAI-compatible upstream in this event loop. Every answer is unique; `calls` says what it was made from.

    While `faulty`, some requests fail: an error status, a stream cut half-way, silence, an answer that is no JSON.
    """

    def __init__(self, seed: int) -> None:
        self.calls: list[Call] = []
        self.tools: dict[str, str] = {}
        """By mark: which tool was called."""
        self.faults: Counter[str] = Counter()
        self.faulty = False
        self.slow = False
        self.pause = 0.0
        """Seconds that every answer takes at least."""
        self.running = 0
        self.port = 0
        self._random = random.Random(f"{seed}:model")
        self._numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, 0).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Close the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.running += 1
        try:
            return await self._answer(request, await request.json())
        except ConnectionResetError:
            raise asyncio.CancelledError from None  # nobody is there to be told
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        full = tuple(_message(message) for message in body["messages"] if message["role"] != "system")
        texts = tuple(message.text for message in plain(full))
        seen = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]
        number = next(self._numbers)
        letter = ASKED if texts[-1].startswith(f"{HELPER} ") else "a"
        answer, asked = f"{letter}{number} saw {len(texts)} as {seen}", self._asks(number, body, full)
        if asked:
            waits = " ".join(call["id"] for call in asked if call["function"]["name"].endswith(GUARDED))
            answer = f"{answer}{WAITS}{waits}" if waits else ""
        with_tools = any(message.calls or message.call_id for message in full)
        self.calls.append(Call(answer or f"(step {number})", texts, time.monotonic(), full if with_tools else ()))
        fault = self._fault(bool(body.get("stream")))
        pause = max(self._pause(), self.pause)
        if fault == "error status":
            return web.json_response({"error": {"message": "mock"}}, status=self._random.choice((500, 502, 503, 429)))
        if fault == "no JSON":
            return web.Response(text="<html>", content_type="application/json")
        if fault == "silence":
            pause = HANG_SECONDS
        await asyncio.sleep(pause)
        if body.get("stream"):
            return await self._stream(request, answer, fault, asked)
        return web.json_response(_completion(answer, asked))

    def _asks(self, number: int, body: dict[str, Any], full: tuple[Message, ...]) -> list[dict[str, Any]]:
        """Return the calls of tools that the answer asks for, each with a mark that the run has once."""
        offered = [tool["function"]["name"] for tool in body.get("tools", ())]
        behind = full[max((n for n, one in enumerate(full) if one.role == "user"), default=0) :]
        steps = sum(bool(message.calls) for message in behind)
        if not offered or steps >= MAX_CALLING_STEPS or self._random.random() > (MORE_STEPS if steps else 0.75):
            return []
        asked = []
        for part in range(self._random.choice((1, 1, 2, 3))):
            name, mark = self._random.choice(offered), f"t{number}.{part}"
            self.tools[mark] = name.rpartition("__")[2]
            arguments = {"message": f"{HELPER} {mark}"} if name == HELPER else {"mark": mark}
            function = {"name": name, "arguments": json.dumps(arguments)}
            asked.append({"id": f"{CALL}{mark}", "type": "function", "function": function})
        return asked

    def _fault(self, streamed: bool) -> str:
        kinds = ("error status", "no JSON", "silence", *(("cut", "stops") if streamed else ()))
        if not self.faulty or self._random.random() > 0.06:
            return ""
        fault = self._random.choice(kinds)
        self.faults[fault] += 1
        return fault

    def _pause(self) -> float:
        draw = self._random.random()
        if not self.slow:
            return 0.0
        if draw < 0.88:
            return draw * 0.04
        return draw * 0.5 if draw < 0.98 else draw * 3

    async def _stream(
        self, request: web.Request, answer: str, fault: str, asked: list[dict[str, Any]]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        pieces = [f"{word} " for word in answer.split(" ")] if answer else []
        if pieces:
            pieces[-1] = pieces[-1].rstrip()
        for number, piece in enumerate(pieces):
            if fault == "cut" and number == 2:
                if request.transport is not None:
                    request.transport.abort()
                return response
            if fault == "stops" and number == 3:
                await asyncio.sleep(HANG_SECONDS)
            await response.write(_event({"content": piece}, None))
            await asyncio.sleep(0.005 if self.slow else 0)
        for index, call in enumerate(asked):
            await response.write(_event({"tool_calls": [{"index": index, **call}]}, None))
        await response.write(_event({}, "tool_calls" if asked else "stop") + b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _message(message: dict[str, Any]) -> Message:
    calls = tuple(call["id"] for call in message.get("tool_calls") or ())
    return Message(message["role"], message.get("content") or "", calls, message.get("tool_call_id", ""))


def _event(delta: dict[str, Any], reason: str | None) -> bytes:
    chunk = {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _completion(answer: str, asked: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer or None}
    if asked:
        message["tool_calls"] = asked
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if asked else "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
