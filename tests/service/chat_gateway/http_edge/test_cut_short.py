"""A stop that hits a commit: whether the turn is stored is not known, and clients must not repeat it by themselves."""

import asyncio

import httpx

from chat_gateway.model.errors import CommitCutShort
from chat_gateway.model.turn import OnDelta, OnStarted, TurnOutcome, TurnRequest
from tests.service.chat_gateway.http_edge.edge import running_edge


async def test_a_commit_that_a_stop_cuts_short_is_not_called_safe_to_repeat() -> None:
    async def committing(request: TurnRequest, on_started: OnStarted | None, on_delta: OnDelta | None) -> TurnOutcome:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise CommitCutShort from None
        raise AssertionError("unreachable")

    async with running_edge(drain_timeout=0.2) as edge:
        edge.turns.script = committing
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", timeout=60, trust_env=False)
        body = {"model": "hello", "messages": [{"role": "user", "content": "Hi"}]}
        plain = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        while not edge.turns.requests:
            await asyncio.sleep(0.01)
    answer = await plain
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert answer.headers["x-should-retry"] == "false"
    await client.aclose()
