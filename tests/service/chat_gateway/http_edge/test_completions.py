"""POST /v1/chat/completions over a real socket; what is of streams alone is in test_completions_streamed.py."""

import asyncio
import json
import time

import httpx
import pytest

from chat_gateway.model.not_found import AgentNotFound
from chat_gateway.model.provider_errors import ProviderUnavailable
from chat_gateway.model.turn import Delta, FinishReason, Message, ToolCall
from contract.enums import BusyPolicy, Role
from servicekit.errors import Code, InvalidArgument, RemoteError, Violation
from tests.service.chat_gateway.http_edge.edge import (
    Edge,
    failing,
    hanging,
    outcome,
    running_edge,
    whole,
)


async def test_a_whole_answer_has_openais_shape_and_our_headers(edge: Edge) -> None:
    answer = await edge.chat()
    assert answer.status_code == 200
    assert answer.json() == {
        "id": "chatcmpl-t1.s1",
        "object": "chat.completion",
        "created": 1777863721,
        "model": "hello",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello!", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-session-id"] == "s1"
    assert answer.headers["x-session-created"] == "true"
    assert answer.headers["x-agent-revision"] == "3"
    assert answer.headers["x-session-expires"] == "2026-05-04T03:32:01.5Z"
    assert "idempotent-replayed" not in answer.headers


async def test_a_stateless_replayed_answer_says_so(edge: Edge) -> None:
    edge.turns.script = whole("x", session_id="", session_created=False, session_expire_time=None, replayed=True)
    answer = await edge.chat(store=False, headers={"Idempotency-Key": "k1"})
    assert edge.turns.requests[0].stateless
    assert edge.turns.requests[0].request_id == "k1"
    assert answer.headers["idempotent-replayed"] == "true"
    assert not {"x-session-id", "x-session-created", "x-session-expires"} & set(answer.headers)


async def test_tool_calls_are_answered_with_null_content(edge: Edge) -> None:
    message = Message(Role.ASSISTANT, tool_calls=(ToolCall("c1", "weather", '{"city":"Rome"}'),))
    edge.turns.script = whole("", message=message, finish_reason=FinishReason.TOOL_CALLS)
    choice = (await edge.chat()).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}, "type": "function"}
    ]


async def test_headers_name_session_user_and_busy_policy(edge: Edge) -> None:
    await edge.chat(headers={"X-Session-ID": "s9", "X-User-ID": "ann", "X-Session-Busy": "reject"})
    request = edge.turns.requests[0]
    assert (request.session_id, request.user_id, request.busy) == ("s9", "ann", BusyPolicy.REJECT)


async def test_a_header_and_a_field_that_differ_are_refused(edge: Edge) -> None:
    answer = await edge.chat(headers={"X-Session-ID": "s9"}, session_id="s8")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "session_id"
    assert edge.turns.requests == []


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("messages[1].tool_calls[2].name", "messages[1].tool_calls[2].function.name"),
        ("messages[1].tool_calls[2].id", "messages[1].tool_calls[2].id"),
        ("messages[0].parts[1].image_url.detail", "messages[0].content[1].image_url.detail"),
    ],
)
async def test_a_broken_rule_is_named_as_in_this_api(edge: Edge, field: str, param: str) -> None:
    edge.turns.script = failing(InvalidArgument([Violation(field, "must be better")]))
    answer = await edge.chat()
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_an_unexpected_exception_leaks_nothing(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    edge.turns.script = failing(RuntimeError("SELECT secret"))
    answer = await edge.chat()
    assert answer.status_code == 500
    assert answer.json() == {
        "error": {"message": "internal error", "type": "server_error", "param": None, "code": "internal"}
    }
    streamed = failing(RuntimeError("SELECT secret"), after=[Delta("x")])
    edge.turns.script = streamed
    assert '"code":"internal"' in (await edge.chat(stream=True)).text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("started", [False, True])
async def test_a_client_that_leaves_cancels_its_turn(edge: Edge, stream: bool, started: bool) -> None:
    await _leave(edge, stream, started)


@pytest.mark.timing
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("started", [False, True])
async def test_a_client_that_leaves_cancels_its_turn_at_once(edge: Edge, stream: bool, started: bool) -> None:
    assert min([await _leave(edge, stream, started) for _ in range(3)]) < 2


async def _leave(edge: Edge, stream: bool, started: bool) -> float:
    """Leaves while a turn runs; returns in how many seconds the turn was cancelled."""
    edge.turns.script = hanging(started=started)
    edge.turns.running.clear()
    edge.turns.cancelled.clear()
    request = asyncio.create_task(edge.chat(stream=stream))
    await asyncio.wait_for(edge.turns.running.wait(), 60)
    request.cancel()
    left = time.perf_counter()
    await asyncio.wait_for(edge.turns.cancelled.wait(), 60)
    return time.perf_counter() - left


async def test_a_connection_serves_many_requests(edge: Edge) -> None:
    for stream in (False, True, False, True):
        answer = await edge.chat(stream=stream)
        assert answer.status_code == 200
        assert "connection" not in answer.headers
    assert not edge.turns.cancelled.is_set()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused_without_a_turn(edge: Edge, chunked: bool) -> None:
    body = json.dumps({"model": "hello", "messages": [{"role": "user", "content": "x" * 22_000_000}]}).encode()

    async def chunks():
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    answer = await edge.client.post("/v1/chat/completions", content=chunks() if chunked else body)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "message_too_large"
    assert answer.headers["connection"] == "close"
    assert edge.turns.requests == []


async def test_a_client_that_waits_for_100_continue_need_not_send_a_body_over_the_limit(edge: Edge) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 25000000\r\nexpect: 100-continue\r\n\r\n"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"message_too_large" in await asyncio.wait_for(reader.readuntil(b"}}"), 60)
    writer.close()
    await writer.wait_closed()


BAD_BODIES = {
    "no JSON": (b'{"model": ', "malformed_body", None),
    "no body": (b"", "malformed_body", None),
    "not UTF-8": (b'{"model":"\xff"}', "malformed_body", None),
    "nested without end": (b"[" * 100_000, "malformed_body", None),
    "no object": (b"[]", "malformed_body", None),
    "no model": (b'{"messages":[{"role":"user","content":"x"}]}', "malformed_body", "model"),
    "content is a number": (
        b'{"model":"a","messages":[{"role":"user","content":7}]}',
        "malformed_body",
        "messages[0].content",
    ),
    "no role": (b'{"model":"a","messages":[{"content":"x"}]}', "malformed_body", "messages[0].role"),
    "unknown role": (
        b'{"model":"a","messages":[{"role":"function","content":"x"}]}',
        "invalid_field",
        "messages[0].role",
    ),
    "unknown part": (
        b'{"model":"a","messages":[{"role":"user","content":[{"type":"video_url"}]}]}',
        "invalid_field",
        "messages[0].content[0].type",
    ),
    "two answers": (b'{"model":"a","messages":[],"n":2}', "invalid_field", "n"),
    "functions": (b'{"model":"a","messages":[],"functions":[{}]}', "invalid_field", "functions"),
    "audio": (b'{"model":"a","messages":[],"modalities":["text","audio"]}', "invalid_field", "modalities"),
    "busy": (b'{"model":"a","messages":[],"busy":"never"}', "invalid_field", "busy"),
    "revision": (b'{"model":"a@x","messages":[]}', "invalid_field", "model"),
    "tool type": (b'{"model":"a","messages":[],"tools":[{"type":"web"}]}', "invalid_field", "tools[0].type"),
    "tool choice": (b'{"model":"a","messages":[],"tool_choice":"any"}', "invalid_field", "tool_choice"),
    "metadata": (b'{"model":"a","messages":[],"metadata":{"a":1}}', "malformed_body", "metadata[...]"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_a_bad_body_is_a_named_error(edge: Edge, name: str) -> None:
    body, code, param = BAD_BODIES[name]
    answer = await edge.client.post("/v1/chat/completions", content=body)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert error["message"]
    assert edge.turns.requests == []


async def test_a_busy_session_says_when_to_come_back(edge: Edge) -> None:
    busy = RemoteError("busy", code=Code.ABORTED, reason="SESSION_BUSY", retry_after=2.2)
    edge.turns.script = failing(busy)
    answer = await edge.chat()
    assert answer.status_code == 409
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["x-should-retry"] == "true"


async def test_a_used_idempotency_key_is_not_to_be_retried(edge: Edge) -> None:
    edge.turns.script = failing(RemoteError("used", code=Code.ABORTED, reason="IDEMPOTENCY_KEY_REUSED"))
    answer = await edge.chat()
    assert answer.status_code == 409
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


async def test_other_methods_are_refused_by_name(edge: Edge) -> None:
    answer = await edge.client.put("/v1/chat/completions")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST, GET"
    assert answer.json()["error"]["code"] == "route_not_found"


async def test_every_answer_has_a_request_id(edge: Edge) -> None:
    given = await edge.chat(headers={"X-Request-ID": "abc-1"})
    made = [(await edge.chat()).headers["x-request-id"] for _ in range(2)]
    edge.turns.script = failing(ProviderUnavailable("local", "can't be reached"))
    failed = await edge.chat(headers={"X-Request-ID": "abc-2"})
    assert given.headers["x-request-id"] == "abc-1"
    assert made[0] != made[1]
    assert failed.headers["x-request-id"] == "abc-2"


async def test_requests_are_measured_by_route_method_and_class(edge: Edge) -> None:
    await edge.chat()
    await edge.chat(stream=True)
    edge.turns.script = failing(AgentNotFound("hello"))
    await edge.chat()
    for status, count in (("2xx", 2.0), ("4xx", 1.0)):
        labels = {
            "http_route": "/v1/chat/completions",
            "http_request_method": "POST",
            "http_response_status_class": status,
        }
        assert edge.registry.get_sample_value("http_server_request_duration_seconds_count", labels) == count


async def test_a_body_over_the_limit_is_not_measured_as_a_completion_elsewhere(edge: Edge) -> None:
    assert (await edge.client.post("/v1/agents", content=b"x" * 5_000_000)).status_code == 413
    labels = {"http_route": "unknown", "http_request_method": "POST", "http_response_status_class": "4xx"}
    async with asyncio.timeout(60):  # measured once the rest of the body has been read
        while edge.registry.get_sample_value("http_server_request_duration_seconds_count", labels) != 1:
            await asyncio.sleep(0.01)


async def test_a_drain_lets_a_turn_finish_and_refuses_new_connections() -> None:
    release = asyncio.Event()

    async def run(request, on_started, on_delta):
        await release.wait()
        return outcome()

    async with running_edge(drain_timeout=60.0) as edge:
        edge.turns.script = run
        client, port = (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", timeout=60, trust_env=False),
            edge.port,
        )
        body = {"model": "hello", "messages": [{"role": "user", "content": "Hi"}]}
        answer = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await edge.turns.running.wait()
        asyncio.get_running_loop().call_later(0.2, release.set)
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", port)
    assert (await answer).status_code == 200
    assert (await answer).headers["connection"] == "close"
    await client.aclose()


async def test_a_drain_that_takes_too_long_ends_turns_with_an_error() -> None:
    async with running_edge(drain_timeout=0.2) as edge:
        edge.turns.script = hanging()
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", timeout=60, trust_env=False)
        body = {"model": "hello", "messages": [{"role": "user", "content": "Hi"}]}
        plain = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        streamed = asyncio.create_task(client.post("/v1/chat/completions", json=body | {"stream": True}))
        while len(edge.turns.requests) < 2:
            await asyncio.sleep(0.01)
    assert (await plain).status_code == 503
    assert (await plain).json()["error"]["code"] == "draining"
    assert (await streamed).status_code == 503
    assert (await streamed).json()["error"]["code"] == "draining"
    await client.aclose()
