"""POST /v1/chat/completions with `stream` over a real socket."""

import asyncio
import json
import time
from dataclasses import replace

import pytest

from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.model.not_found import AgentNotFound
from chat_gateway.model.provider_errors import ProviderTimeout
from chat_gateway.model.turn import Delta, FinishReason, ToolCallDelta
from tests.service.chat_gateway.http_edge.edge import (
    STARTED,
    Edge,
    failing,
    outcome,
    pieces,
    running_edge,
)

CHUNK = (
    'data: {"id":"chatcmpl-t1.s1","object":"chat.completion.chunk","created":1777863721,"model":"hello",'
    '"choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]%s}\n\n'
)
COMMENT = ": keep-alive\n\n"
ASKED = {"model": "hello", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
ROLE = '{"role":"assistant","content":"","refusal":null}'


@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_stream_byte_by_byte(edge: Edge, include_usage: bool) -> None:
    edge.turns.script = pieces([Delta("Hel"), Delta('lo "ü"\n')], 'Hello "ü"\n')
    answer = await edge.chat(stream=True, stream_options={"include_usage": include_usage})
    usage = ',"usage":null' if include_usage else ""
    expected = [
        CHUNK % (ROLE, "null", usage),
        CHUNK % ('{"content":"Hel"}', "null", usage),
        CHUNK % ('{"content":"lo \\"ü\\"\\n"}', "null", usage),
        CHUNK % ("{}", '"stop"', usage),
    ]
    if include_usage:
        expected.append(
            'data: {"id":"chatcmpl-t1.s1","object":"chat.completion.chunk","created":1777863721,"model":"hello",'
            '"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,'
            '"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":0}}}\n\n'
        )
    assert answer.content.decode() == "".join([*expected, "data: [DONE]\n\n"])
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-session-id"] == "s1"
    assert answer.headers["x-session-created"] == "true"
    assert answer.headers["x-agent-revision"] == "3"


async def test_tool_calls_stream_in_pieces(edge: Edge) -> None:
    deltas = [
        Delta("", (ToolCallDelta(0, "c1", "weather", ""),)),
        Delta("", (ToolCallDelta(0, arguments='{"city"'),)),
        Delta(refusal="no"),
    ]
    edge.turns.script = pieces(deltas, "", finish_reason=FinishReason.TOOL_CALLS)
    answer = await edge.chat(stream=True)
    frames = [json.loads(frame[6:]) for frame in answer.text.split("\n\n")[1:4]]
    assert [frame["choices"][0]["delta"] for frame in frames] == [
        {
            "tool_calls": [
                {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city"'}}]},
        {"refusal": "no"},
    ]


async def test_the_end_of_a_stream_waits_for_the_commit(edge: Edge) -> None:
    committed = asyncio.Event()

    async def run(request, on_started, on_delta):
        await on_started(STARTED)
        await on_delta(Delta("Hello!"))
        await committed.wait()
        return outcome()

    edge.turns.script = run
    async with edge.client.stream("POST", "/v1/chat/completions", json=ASKED) as answer:
        frames = answer.aiter_text()
        seen = await anext(frames)
        while "Hello!" not in seen:
            seen += await anext(frames)
        assert '"finish_reason":"stop"' not in seen
        committed.set()
        rest = "".join([text async for text in frames])
    assert '"finish_reason":"stop"' in rest
    assert rest.endswith("data: [DONE]\n\n")


async def test_silence_is_broken_by_comments() -> None:
    interval, begun, heard = 0.05, 0.0, asyncio.Event()

    async def run(request, on_started, on_delta):
        nonlocal begun
        await asyncio.sleep(3 * interval)  # nothing may be sent before the turn has begun
        begun = time.perf_counter()
        await on_started(STARTED)
        await heard.wait()
        await on_delta(Delta("Hello!"))
        return outcome()

    async with running_edge(HttpSettings(keep_alive_interval=interval)) as edge:
        edge.turns.script = run
        text = ""
        async with edge.client.stream("POST", "/v1/chat/completions", json=ASKED) as answer:
            async for piece in answer.aiter_text():
                text += piece
                if text.count(COMMENT) >= 2 and not heard.is_set():
                    silence = time.perf_counter() - begun
                    heard.set()
    before, _, after = text.partition(CHUNK % ('{"content":"Hello!"}', "null", ""))
    comments = before.removeprefix(CHUNK % (ROLE, "null", ""))
    assert comments.replace(COMMENT, "") == ""
    assert 2 <= comments.count(COMMENT) <= silence / interval + 1
    assert after.endswith("data: [DONE]\n\n")


async def test_an_error_before_the_start_of_a_stream_is_a_plain_error(edge: Edge) -> None:
    edge.turns.script = failing(AgentNotFound("hello"))
    answer = await edge.chat(stream=True)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["code"] == "agent_not_found"


async def test_an_error_before_the_first_piece_of_a_stream_has_its_status(edge: Edge) -> None:
    edge.turns.script = failing(ProviderTimeout("local", "first_token"), after=[])
    answer = await edge.chat(stream=True)
    assert answer.status_code == 504
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["code"] == "provider_timeout"


async def test_an_error_after_a_comment_is_a_frame() -> None:
    heard = asyncio.Event()

    async def run(request, on_started, on_delta):
        await on_started(STARTED)
        await heard.wait()
        raise ProviderTimeout("local", "first_token")

    async with running_edge(HttpSettings(keep_alive_interval=0.05)) as edge:
        edge.turns.script = run
        text = ""
        async with edge.client.stream("POST", "/v1/chat/completions", json=ASKED) as answer:
            async for piece in answer.aiter_text():
                text += piece
                if COMMENT in text:
                    heard.set()
    assert answer.status_code == 200
    assert text.startswith(CHUNK % (ROLE, "null", "") + COMMENT)
    assert text.endswith('"code":"provider_timeout"}}\n\n')


async def test_an_answer_without_pieces_is_a_whole_stream(edge: Edge) -> None:
    edge.turns.script = pieces([], "")
    answer = await edge.chat(stream=True)
    assert answer.status_code == 200
    assert answer.text.startswith(CHUNK % (ROLE, "null", ""))
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_the_head_of_a_stream_names_the_session(edge: Edge) -> None:
    async def run(request, on_started, on_delta):
        await on_started(replace(STARTED, replayed=True))
        await on_delta(Delta("Hello!"))
        return outcome()

    edge.turns.script = run
    headers = (await edge.chat(stream=True)).headers
    assert headers["x-session-id"] == "s1"
    assert headers["x-session-expires"] == "2026-05-04T03:32:01.5Z"
    assert headers["idempotent-replayed"] == "true"


async def test_an_error_in_mid_stream_is_one_frame_without_done(edge: Edge) -> None:
    edge.turns.script = failing(ProviderTimeout("local", "between_tokens"), after=[Delta("Hel")])
    answer = await edge.chat(stream=True)
    assert answer.status_code == 200
    assert answer.text == (
        CHUNK % (ROLE, "null", "")
        + CHUNK % ('{"content":"Hel"}', "null", "")
        + 'data: {"error":{"message":"provider \'local\' took longer than the bound \'between_tokens\'",'
        '"type":"server_error","param":null,"code":"provider_timeout"}}\n\n'
    )
