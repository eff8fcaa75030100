"""Answers that Anthropic's API pauses, and goes on with once they are sent back."""

import json
from typing import Any

import pytest

from chat_gateway.model.provider_errors import ProviderBadResponse
from chat_gateway.model.turn import Delta, FinishReason, Usage
from chat_gateway.providers.http_client import open_client
from chat_gateway.providers.http_provider import MAX_PAUSES
from chat_gateway.providers.provider import ModelAnswer
from tests.unit.chat_gateway.raw_provider import CALL, Server, listening, provider_at
from tests.unit.chat_gateway.zoo.anthropic_rows import FOUND, SEARCH, TEXT, THINKING, F, both
from tests.unit.chat_gateway.zoo.row import OK, Row

MORE = {"type": "text", "text": " and more"}


def paused(*blocks: dict[str, Any], **more: Any) -> list[Row]:
    return both("paused", list(blocks), OK, "pause_turn", **more)


def ended(*blocks: dict[str, Any], reason: str = "end_turn") -> list[Row]:
    return both("ended", list(blocks), OK, reason)


async def answered(server: Server, deltas: list[Delta] | None) -> ModelAnswer:
    async def note(delta: Delta) -> None:
        assert deltas is not None
        deltas.append(delta)

    async with listening(server) as url, open_client(10) as client:
        provider = provider_at(url, client, kind="anthropic")
        return await provider.complete(CALL, None if deltas is None else note)


def bodies(server: Server) -> list[dict[str, Any]]:
    return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_paused_answer_goes_on_as_it_is(streamed: bool) -> None:
    parts = [
        paused(THINKING, SEARCH, container={"id": "container_1"}),
        paused(FOUND, TEXT),
        ended(THINKING, MORE, F, reason="tool_use"),
    ]
    server = Server(*[rows[streamed].wire() for rows in parts])
    deltas: list[Delta] | None = [] if streamed else None
    answer = await answered(server, deltas)
    assert answer.pause is None
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    assert answer.usage == Usage(75, 45)
    message = answer.message
    assert (message.content, message.reasoning) == ("ok and more", "hm\n\nhm")
    assert [call.name for call in message.tool_calls] == ["f"]
    assert message.provider_data is not None
    assert json.loads(message.provider_data.json) == [THINKING, SEARCH, FOUND, 2, THINKING, 9, "call"]
    first, second, third = bodies(server)
    question = first["messages"]
    assert second["messages"] == [*question, {"role": "assistant", "content": [THINKING, SEARCH]}]
    assert third["messages"] == [*question, {"role": "assistant", "content": [THINKING, SEARCH, FOUND, TEXT]}]
    assert ["container" in body for body in (first, second, third)] == [False, True, True]
    assert third["container"] == "container_1"
    if deltas is not None:
        assert "".join(delta.content for delta in deltas) == message.content
        assert [delta.provider_data for delta in deltas if delta.provider_data] == [message.provider_data]
        [call] = message.tool_calls
        assert "".join(one.arguments for delta in deltas for one in delta.tool_calls) == call.arguments


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_paused_text_goes_on(streamed: bool) -> None:
    server = Server(*[rows[streamed].wire() for rows in (paused(TEXT), ended(MORE))])
    answer = await answered(server, [] if streamed else None)
    assert (answer.message.content, answer.message.provider_data) == ("ok and more", None)
    assert bodies(server)[1]["messages"][-1] == {"role": "assistant", "content": [TEXT]}


async def test_it_does_not_go_on_for_ever() -> None:
    server = Server(*[paused(TEXT)[0].wire()] * (MAX_PAUSES + 2))
    with pytest.raises(ProviderBadResponse, match="paused 9 times"):
        await answered(server, None)
    assert len(server.requests) == MAX_PAUSES + 1
