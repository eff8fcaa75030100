"""What providers say beside an answer, as callers of chat completions see it, and give it back."""

import json
from typing import Any

import pytest

from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.memory import MemoryBudget
from chat_gateway.model.provider_errors import ProviderMisconfigured, ProviderRateLimited, ProviderRejected
from chat_gateway.model.turn import (
    AnswerDetails,
    Delta,
    FinishReason,
    Message,
    ProviderData,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from contract.enums import Role
from servicekit.errors import RemoteError
from session_svc.model.errors import ToolChainTooLarge
from tests.service.chat_gateway.http_edge.edge import Edge, failing, pieces, running_edge, whole

SIGNED = ProviderData("anthropic", "claude", b'{"signature":"s"}')
KEPT = {"parley": {"kind": "anthropic", "provider": "claude", "data": {"signature": "s"}}}
THOUGHT = Message(
    Role.ASSISTANT, "", tool_calls=(ToolCall("c", "f", "{}", SIGNED),), reasoning="hm", provider_data=SIGNED
)
DETAILS = AnswerDetails("claude", "fp", "flex", b'[{"type":"url_citation"}]', b'{"content":[]}')


def chunks(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]


async def test_a_whole_answer_shows_what_the_provider_said(edge: Edge) -> None:
    edge.turns.script = whole("", message=THOUGHT, details=DETAILS, usage=Usage(9, 5, 2, 3, 4))
    answer = (await edge.chat()).json()
    (choice,) = answer["choices"]
    assert choice["message"]["content"] is None
    assert choice["message"]["reasoning_content"] == "hm"
    assert choice["message"]["extra_content"] == choice["message"]["tool_calls"][0]["extra_content"] == KEPT
    assert choice["message"]["annotations"] == [{"type": "url_citation"}]
    assert choice["logprobs"] == {"content": []}
    assert (answer["system_fingerprint"], answer["service_tier"]) == ("fp", "flex")
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 2, "cache_write_tokens": 4}


async def test_reasoning_without_an_answer_has_null_for_content(edge: Edge) -> None:
    message = Message(Role.ASSISTANT, "", reasoning="hm")
    edge.turns.script = whole("", message=message, finish_reason=FinishReason.LENGTH)
    (choice,) = (await edge.chat()).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "length")


async def test_a_stream_shows_it_piece_by_piece(edge: Edge) -> None:
    call = ToolCallDelta(0, "c", "f", "{}", SIGNED)
    deltas = [
        Delta(reasoning="h"),
        Delta(reasoning="m"),
        Delta("ok", logprobs=b'{"content":[]}'),
        Delta("", (call,), provider_data=SIGNED),
    ]
    edge.turns.script = pieces(deltas, "ok", details=DETAILS)
    said = chunks((await edge.chat(stream=True)).text)
    choices = [chunk["choices"][0] for chunk in said]
    assert [choice["delta"].get("reasoning_content") for choice in choices[1:3]] == ["h", "m"]
    assert choices[3]["logprobs"] == {"content": []}
    assert choices[4]["delta"]["extra_content"] == choices[4]["delta"]["tool_calls"][0]["extra_content"] == KEPT
    assert choices[5]["delta"] == {"annotations": [{"type": "url_citation"}]}
    assert choices[5]["finish_reason"] == "stop"
    assert (said[5]["system_fingerprint"], said[5]["service_tier"]) == ("fp", "flex")
    assert {chunk["id"] for chunk in said} == {"chatcmpl-t1.s1"}


async def test_what_was_shown_is_taken_back(edge: Edge) -> None:
    edge.turns.script = whole("", message=THOUGHT)
    shown = (await edge.chat()).json()["choices"][0]["message"]
    tool = {"role": "tool", "tool_call_id": "c", "content": "4"}
    answer = await edge.chat(messages=[{"role": "user", "content": "Hi"}, shown, tool], store=False)
    assert answer.status_code == 200
    assert edge.turns.requests[-1].messages[1] == THOUGHT


async def test_other_extra_content_costs_no_request(edge: Edge) -> None:
    message = {"role": "assistant", "content": "x", "extra_content": {"google": {"thought_signature": "s"}}}
    assert (await edge.chat(messages=[message], store=False)).status_code == 200


async def test_a_providers_refusal_keeps_its_code(edge: Edge) -> None:
    edge.turns.script = failing(
        ProviderRejected("p", 400, code="context_length_exceeded", param="messages", message="8192 tokens at most")
    )
    answer = await edge.chat()
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert "8192 tokens at most" in error["message"]


async def test_what_no_window_holds_is_the_contexts_length(edge: Edge) -> None:
    too_large = ToolChainTooLarge()
    edge.turns.script = failing(
        RemoteError(too_large.message, code=too_large.code, reason=too_large.reason, metadata=too_large.metadata)
    )
    answer = await edge.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert answer.headers.get("x-should-retry") != "true"


async def test_large_requests_have_a_budget_of_memory_and_small_ones_do_not_wait_for_it() -> None:
    size = 200 * 1024
    memory = MemoryBudget(2 * size, patience=0.1)
    picture = {"url": "data:image/png;base64," + "A" * (size - 1024)}
    large = [{"role": "user", "content": [{"type": "image_url", "image_url": picture}]}]
    async with running_edge(HttpSettings(memory=memory)) as edge:
        async with memory.held(size):
            assert (await edge.chat(messages=large)).status_code == 200
            async with memory.held(size):
                refused = await edge.chat(messages=large)
                assert (refused.status_code, refused.json()["error"]["code"]) == (429, "turn_queue_full")
                assert refused.headers["x-should-retry"] == "true"
                assert (await edge.chat()).status_code == 200
        assert memory.used == 0
        edge.turns.script = failing(ProviderRateLimited("p", retry_after=None))
        await edge.chat(messages=large)
        assert memory.used == 0


ROUTES_OF_LARGE_BODIES = {
    "/v1/chat/completions": {"model": "hello", "messages": [{"role": "user", "content": "x" * 100_000}]},
    "/v1/responses": {"model": "hello", "input": "x" * 100_000},
    "/v1/agents": {"id": "a", "name": "A", "template_id": "t", "instructions": "x" * 100_000},
    "/v1/conversations": {"metadata": {"a": "x" * 100_000}},
}


@pytest.mark.parametrize("budget", ["memory", "decoding"])
async def test_large_bodies_are_held_and_decoded_within_a_budget_on_every_route(budget: str) -> None:
    full = MemoryBudget(8 * 1024 * 1024, patience=0.1)
    settings = HttpSettings(memory=full) if budget == "memory" else HttpSettings(decoding=full)
    async with running_edge(settings) as edge:
        for path, body in ROUTES_OF_LARGE_BODIES.items():
            async with full.held(full.max_bytes):
                refused = await edge.client.post(path, json=body)
                assert (refused.status_code, refused.json()["error"]["code"]) == (429, "turn_queue_full")
                assert refused.headers["retry-after"]
                small = await edge.client.post(path, json={"model": "hello"})
                assert b"turn_queue_full" not in small.content
            assert (await edge.client.post(path, json=body)).status_code != 429
            assert full.used == 0


async def test_what_the_operator_has_to_mend_is_502(edge: Edge) -> None:
    edge.turns.script = failing(ProviderMisconfigured("p", "answered with status 401", status=401))
    answer = await edge.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_misconfigured")
    assert answer.headers["x-should-retry"] == "false"


async def test_a_providers_limit_is_429_whatever_number_it_says(edge: Edge) -> None:
    for said, header in ((7.2, "8"), (None, "1"), (float("nan"), "1"), (float("inf"), "1")):
        edge.turns.script = failing(ProviderRateLimited("p", retry_after=said))
        answer = await edge.chat()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, header)
        assert answer.json()["error"]["code"] == "provider_rate_limited"
