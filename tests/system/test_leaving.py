"""A caller that leaves ends its model call within 100 ms, over both protocols, streamed or not."""

import asyncio
import contextlib
import math
import time
from typing import Any
from uuid import uuid4

import aiohttp
import grpc
import pytest

from parley.chat.v1 import chat_service_pb2 as pb
from parley.chat.v1 import chat_service_pb2_grpc
from parley.session.v1 import message_pb2
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

pytestmark = pytest.mark.timing

WITHIN_SECONDS = 0.1
TRIES = 20
"""The quickest counts: what is measured is what the gateway waits for, not what a busy machine does to it."""


async def ask_http(system: System, agent: str, session: str, *, stream: bool) -> None:
    """Ask, and read on until something ends it."""
    body = {
        "model": agent,
        "session_id": session,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": stream,
    }
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.post(f"{system.http_url}/v1/chat/completions", json=body) as answer,
    ):
        await answer.read()


async def ask_grpc(system: System, agent: str, session: str, *, stream: bool) -> None:
    """Ask, and read on until something ends it."""
    said = message_pb2.Message(role=message_pb2.ROLE_USER, content="hi")
    asked = pb.TurnInput(agent_id=agent, session_id=session, messages=[said])
    async with grpc.aio.insecure_channel(system.grpc_target) as channel:
        stub = chat_service_pb2_grpc.ChatServiceStub(channel)
        if not stream:
            await stub.Complete(pb.CompleteRequest(input=asked), timeout=30)
            return
        events = stub.StreamComplete(pb.StreamCompleteRequest(input=asked), timeout=30)
        try:
            async for _ in events:
                pass
        finally:
            events.cancel()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ask", [ask_http, ask_grpc], ids=["http", "grpc"])
async def test_a_caller_that_leaves_ends_its_model_call(parley_system: System, ask: Any, stream: bool) -> None:
    agent, session = f"agent-{uuid4().hex[:8]}", f"s-{uuid4().hex}"
    await asyncio.to_thread(parley_system.create_agent, agent)
    model = parley_system.model
    times: list[float] = []
    while min(times, default=math.inf) >= WITHIN_SECONDS and len(times) < TRIES:
        model.reset()
        model.script(Behaviour(hold_after_chunks=1) if stream else Behaviour(hold=True))
        asking = asyncio.create_task(ask(parley_system, agent, session, stream=stream))
        await model.received(1)
        await asyncio.sleep(0.05)
        assert model.running == 1
        left = time.monotonic()
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        while model.running:
            assert time.monotonic() - left < 60, "the model call goes on"
            await asyncio.sleep(0.002)
        times.append(time.monotonic() - left)
        assert model.abandoned == 1
    assert min(times) < WITHIN_SECONDS, times
    model.reset()
    answer = await asyncio.to_thread(parley_system.chat, agent, "hi", session_id=session)
    assert (answer.status_code, answer.headers["X-Session-Created"]) == (200, "true"), "nothing of the others is stored"
