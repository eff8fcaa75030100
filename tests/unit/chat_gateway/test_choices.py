"""Several answers to one prompt."""

import asyncio
import json
from typing import Any

import pytest

from chat_gateway.http_edge.openai.chat.answer import CompletionChunks, completion
from chat_gateway.model.agent_config import RequestPolicy
from chat_gateway.model.provider_errors import ProviderUnavailable
from chat_gateway.model.rules import check_turn_request
from chat_gateway.model.turn import Delta, OnDelta, TurnStarted
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from servicekit.errors import InvalidArgument
from tests.unit.chat_gateway.world import FakeConfigs, FakeProvider, World, asks, make_config

THREE = {"choices": 3, "store": False, "stateless": True}


class Counting(FakeProvider):
    """Says which call it answers; `failing` fails."""

    failing = -1

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        number = len(self.calls)
        if number == self.failing:
            self.calls.append(call)
            raise ProviderUnavailable("local", "is down")
        self.pieces = (f"a{number}", "!")
        return await super().complete(call, on_delta)


async def test_each_answer_is_a_choice_and_the_usage_is_that_of_all() -> None:
    world = World(provider=Counting())
    outcome = await world.runner.run(asks(**THREE))
    body = json.loads(completion(outcome, "support"))
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert sorted(choice["message"]["content"] for choice in body["choices"]) == ["a0!", "a1!", "a2!"]
    assert body["usage"]["completion_tokens"] == 6
    assert not world.sessions.turns


async def test_streamed_pieces_have_the_index_of_their_answer() -> None:
    world = World(provider=Counting())
    chunks, sent = CompletionChunks("support", include_usage=False, choices=3), b""

    async def on_started(started: TurnStarted) -> None:
        nonlocal sent
        sent += chunks.start(started)

    async def on_delta(delta: Delta) -> None:
        nonlocal sent
        sent += chunks.delta(delta)

    outcome = await world.runner.run(asks(**THREE), on_started, on_delta)
    sent += chunks.finish(outcome)
    events: list[Any] = [json.loads(line[6:]) for line in sent.split(b"\n\n") if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in event["choices"]]
    for index in range(3):
        own = [choice for choice in choices if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in own) == f"a{index}!"
        assert [choice["finish_reason"] for choice in own if choice["finish_reason"]] == ["stop"]
    assert sent.endswith(b"[DONE]\n\n")


async def test_one_that_fails_ends_the_turn_and_the_others() -> None:
    provider = Counting(before=lambda: asyncio.sleep(3600))
    provider.failing = 1
    with pytest.raises(ProviderUnavailable):
        await World(provider=provider).runner.run(asks(**THREE))
    assert provider.cancelled == 2


async def test_a_session_has_one_answer_whoever_says_that_there_is_one() -> None:
    for said in ({}, {"session_id": "s"}, {"store": True}):
        with pytest.raises(InvalidArgument) as refused:
            await World().runner.run(asks(choices=2, **said))
        assert [violation.field for violation in refused.value.violations] == ["choices"]
    with pytest.raises(InvalidArgument, match="choices"):
        check_turn_request(asks(choices=2))
    stateless = World(configs=FakeConfigs(make_config(requests=RequestPolicy(store=False))))
    assert len((await stateless.runner.run(asks(choices=2))).others) == 1
