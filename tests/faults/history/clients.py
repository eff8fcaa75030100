"""The callers: each runs turn after turn on sessions that it shares with the others, and notes what it was told."""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict

import aiohttp
import grpc

from parley.chat.v1 import chat_service_pb2 as pb
from parley.chat.v1 import chat_service_pb2_grpc
from parley.session.v1 import message_pb2, turn_service_pb2
from servicekit.rpc_status import from_rpc_error
from tests.faults.history.background import Submissions, Told, refused
from tests.faults.history.records import MISMATCH, Attempt, Ending, Message, Operation
from tests.faults.history.slots import AGENT, TOOLED_AGENT, Sessions
from tests.faults.history.tooling import CALL

PATIENCE_SECONDS = 12.0
MAX_ATTEMPTS = 6
DECIDED, APPROVED = 0.7, 0.8
"""How often a caller decides on calls that wait, and approves one."""
WAITING = re.compile(rf"{CALL}\S+")
BACKGROUND, CANCELLED_AFTER = 0.3, 0.2
"""How often a turn is submitted and not waited for, and how often such a one is cancelled."""
RESENT = 0.4
"""How often a caller of a lasting session reads its history and sends it along."""
READ_SECONDS = 3.0
BUSY = {
    "wait": turn_service_pb2.BUSY_POLICY_WAIT,
    "reject": turn_service_pb2.BUSY_POLICY_REJECT,
    "interrupt": turn_service_pb2.BUSY_POLICY_INTERRUPT,
}

ROLES = {"user": message_pb2.ROLE_USER, "assistant": message_pb2.ROLE_ASSISTANT}


class Edges:
    """The gateways' public sides, over HTTP and gRPC."""

    def __init__(self, http_urls: list[str], grpc_targets: list[str]) -> None:
        self._urls = http_urls
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500)]
        self._channels = [grpc.aio.insecure_channel(target, options=options) for target in grpc_targets]
        self._stubs = [chat_service_pb2_grpc.ChatServiceStub(channel) for channel in self._channels]
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), trust_env=False
        )
        self.submissions = Submissions(self.http, urls=http_urls)

    def __len__(self) -> int:
        return len(self._urls)

    def url(self, gateway: int, path: str) -> str:
        """Return the address of a path at a gateway."""
        return self._urls[gateway] + path

    async def close(self) -> None:
        """Close every connection."""
        await self.http.close()
        for channel in self._channels:
            await channel.close()

    async def attempt(
        self, operation: Operation, gateway: int, patience: float, *, deadline: float | None = None
    ) -> Attempt:
        """Try once, leave after `patience` seconds, note it in the operation and return it.

        A gRPC call's `deadline` is half a second before the caller leaves, so that its error is heard, unless told.
        """
        deadline = max(patience - 0.5, 0.05) if deadline is None else deadline
        send = self._by_http if operation.edge == "http" or operation.background else self._by_grpc
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                told = await send(operation, gateway, deadline)
        except TimeoutError:
            told = Told(Ending.UNKNOWN, "(the client left)")
        except (aiohttp.ClientError, OSError, json.JSONDecodeError) as error:
            told = Told(Ending.UNKNOWN, f"({type(error).__name__})")
        except grpc.aio.AioRpcError as error:
            told = _told_by_grpc(error)
        attempt = Attempt(gateway, began, time.monotonic(), **asdict(told))
        operation.attempts.append(attempt)
        return attempt

    async def stored(self, session: str, gateway: int) -> list[Message] | None:
        """Read all that is stored of a session, oldest first; None when a page could not be had."""
        messages: list[Message] = []
        token = ""
        while True:
            query = {"page_size": "100", **({"page_token": token} if token else {})}
            url = self.url(gateway, f"/v1/sessions/{session}/messages")
            async with self.http.get(url, params=query) as response:
                if response.status != 200:
                    return [] if response.status == 404 else None
                page = await response.json()
            messages += [
                Message(
                    message["role"],
                    message["content"] or "",
                    tuple(call["id"] for call in message.get("tool_calls", ())),
                    message.get("tool_call_id", ""),
                )
                for message in page["data"]
            ]
            token = page.get("next_page_token") or ""
            if not token:
                return messages

    async def _by_http(self, operation: Operation, gateway: int, _: float) -> Told:
        body = {
            "model": operation.agent,
            "session_id": operation.session,
            "messages": [{"role": message.role, "content": message.text} for message in _messages(operation)],
            "stream": operation.streamed,
            "busy": operation.busy,
            "on_disconnect": "finish" if operation.finish else "cancel",
        }
        if operation.approvals:
            decided = [{"tool_call_id": call_id, "approve": approve} for call_id, approve in operation.approvals]
            body["approvals"] = decided
        headers = {"Idempotency-Key": operation.key} if operation.key else {}
        url = self.url(gateway, "/v1/chat/completions")
        if operation.background:
            return await self.submissions.run(operation, gateway, body | {"background": True}, headers)
        async with self.http.post(url, json=body, headers=headers) as response:
            if response.status != 200:
                error = (await response.json())["error"]
                return refused(error["code"], response.status, error["message"])
            if operation.streamed:
                return await _streamed(response.content)
            answer = await response.json()
            text = answer["choices"][0]["message"]["content"]
            return Told(Ending.ACKNOWLEDGED, "", text, "idempotent-replayed" in response.headers)

    async def _by_grpc(self, operation: Operation, gateway: int, timeout: float) -> Told:
        asked = pb.TurnInput(
            agent_id=operation.agent,
            session_id=operation.session,
            messages=[
                message_pb2.Message(role=ROLES[message.role], content=message.text) for message in _messages(operation)
            ],
            busy=BUSY[operation.busy],
            on_disconnect=pb.ON_DISCONNECT_FINISH if operation.finish else pb.ON_DISCONNECT_CANCEL,
            request_id=operation.key,
        )
        stub = self._stubs[gateway]
        if not operation.streamed:
            whole = await stub.Complete(pb.CompleteRequest(input=asked), timeout=timeout)
            return Told(Ending.ACKNOWLEDGED, "", whole.message.content, whole.outcome.replayed)
        text = ""
        stream = stub.StreamComplete(pb.StreamCompleteRequest(input=asked), timeout=timeout)
        try:
            async for event in stream:
                if event.HasField("delta"):
                    text += event.delta.content
                if event.HasField("finished"):
                    return Told(Ending.ACKNOWLEDGED, "", text, event.finished.replayed)
        finally:
            stream.cancel()
        return Told(Ending.UNKNOWN, "(the stream ended early)")


def _messages(operation: Operation) -> list[Message]:
    return [*operation.transcript, *(Message("user", text) for text in operation.texts)]


def _told_by_grpc(error: grpc.aio.AioRpcError) -> Told:
    meant = from_rpc_error(error)
    local = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
    if local and not error.trailing_metadata():
        return Told(Ending.UNKNOWN, f"({error.code().name})")
    opaque = local or error.code() is grpc.StatusCode.INTERNAL
    return refused(meant.reason.lower(), 500 if opaque else 400, meant.message)


async def _streamed(content: aiohttp.StreamReader) -> Told:
    text = ""
    async for event in _events(content):
        if "error" in event:
            return refused(event["error"]["code"], 500, event["error"]["message"])
        [choice] = event["choices"]
        text += choice["delta"].get("content") or ""
        if choice["finish_reason"]:
            return Told(Ending.ACKNOWLEDGED, "", text)
    return Told(Ending.UNKNOWN, "(the stream ended early)")


async def _events(
    content: aiohttp.StreamReader,
) -> AsyncIterator[dict[str, object] | dict[str, list[dict[str, dict[str, str]]]]]:
    async for line in content:
        if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
            yield json.loads(line[6:])


class Client:
    """One caller. What it does follows from the seed; what comes of it does not."""

    def __init__(
        self, seed: int, number: int, edges: Edges, sessions: Sessions, note: Callable[[Operation], None]
    ) -> None:
        self._random = random.Random(f"{seed}:client:{number}")
        self._name = f"c{number}"
        self._edges = edges
        self._sessions = sessions
        self._note = note

    async def run(self, until: float) -> None:
        """Run turns until `until`; the last one is finished."""
        number = 0
        while time.monotonic() < until:
            number += 1
            operation = self._operation(number)
            if self._sessions.lasts(operation.session) and self._random.random() < RESENT:
                operation.transcript = await self._history(operation.session)
            self._note(operation)
            await self._see_through(operation)
            await asyncio.sleep(self._random.uniform(0, 0.05))

    def _operation(self, number: int) -> Operation:
        draw, name = self._random, f"{self._name}.{number}"
        session, agent = self._sessions.pick(draw)
        approvals = self._decided(session)
        # Of those alone that nobody deletes with their agent, and that do not expire while they are looked at.
        background = agent in (AGENT, TOOLED_AGENT) and draw.random() < BACKGROUND
        return Operation(
            id=name,
            session=session,
            agent=agent,
            texts=tuple(f"u {name}/{part}" for part in range(draw.choice((1, 1, 1, 2, 3)))),
            key=f"key-{name}" if draw.random() < 0.5 else "",
            busy=draw.choices(("wait", "reject", "interrupt"), (7, 2, 1))[0],
            streamed=draw.random() < 0.5,
            edge="http" if draw.random() < 0.6 or approvals else "grpc",
            finish=draw.random() < 0.25 or background,
            background=background,
            cancel_after=draw.uniform(0.0, 0.5) if background and draw.random() < CANCELLED_AFTER else None,
            approvals=approvals,
        )

    def _decided(self, session: str) -> tuple[tuple[str, bool], ...]:
        """Return what is said of the calls that wait in a session, as far as anybody knows: often nothing."""
        waiting = self._sessions.waiting.get(session, ())
        if not waiting or self._random.random() > DECIDED:
            return ()
        return tuple((call_id, self._random.random() < APPROVED) for call_id in waiting)

    async def _history(self, session: str) -> tuple[Message, ...]:
        try:
            async with asyncio.timeout(READ_SECONDS):
                return tuple(await self._edges.stored(session, self._random.randrange(len(self._edges))) or ())
        except (aiohttp.ClientError, OSError, json.JSONDecodeError):
            return ()

    async def _see_through(self, operation: Operation) -> None:
        """Try until the outcome is known: what is sent with its whole history is stored once at most without a key."""
        draw = self._random
        for _ in range(MAX_ATTEMPTS if operation.key or operation.transcript else 1):
            patience = draw.uniform(0.0, 0.4) if draw.random() < 0.08 else PATIENCE_SECONDS
            attempt = await self._edges.attempt(operation, draw.randrange(len(self._edges)), patience)
            if attempt.ending is Ending.ACKNOWLEDGED:
                self._sessions.waiting[operation.session] = tuple(WAITING.findall(attempt.answer))
                return
            if attempt.detail == MISMATCH:
                return
            await asyncio.sleep(draw.uniform(0.05, 0.6))
