"""What one request may hold, and what its refusal costs: everything is bounded before it is converted."""

import asyncio
import gzip
import json
import math
import time
import zlib
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.wire.bodies import MAX_BODY_VALUES, MAX_ITEMS, MAX_VALUES, check_values
from servicekit.errors import InvalidArgument
from tests.service.chat_gateway.http_edge.edge import Edge, running_edge

MESSAGE = {"role": "user", "content": "Hi"}
JSON = {"content-type": "application/json"}
TRIES = 3
"""The quickest counts: what is measured is the gateway, not the machine."""


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as running:
        yield running


def body(**fields: object) -> bytes:
    return json.dumps({"model": "hello", "messages": [MESSAGE]} | fields).encode()


@pytest.mark.parametrize(
    "name",
    ["Authorization", "X-Project-ID", "X-User-ID", "X-Session-ID", "Idempotency-Key", "X-Session-Busy", "X-Request-ID"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/agents"])
async def test_a_header_that_decides_something_is_given_once(edge: Edge, name: str, path: str) -> None:
    headers = [(name, "wait"), (name.lower(), "reject")]
    answer = await edge.client.post(path, content=body(), headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["violations"] == [{"field": name, "description": "must be given once"}]
    assert edge.turns.requests == []


WIDE = {
    "messages": lambda: {"messages": [MESSAGE] * 100_000},
    "parts": lambda: {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 100_000}]},
    "calls": lambda: {"messages": [{"role": "assistant", "tool_calls": [{}] * 1_000_000}]},
    "response_format": lambda: {"response_format": {"a": [1] * 1_000_000}},
    "objects": lambda: {"response_format": {str(number): {} for number in range(200_000)}},
    "values": lambda: {"response_format": {"a": [1] * (MAX_VALUES + 1)}},
    "tools": lambda: {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"a": [{}] * 500_000}}}]},
    "stop": lambda: {"stop": ["a"] * 500_000},
    "unknown": lambda: {"whatever": [{}] * 1_000_000},
    "deep": lambda: {"response_format": json.loads("[" * 900 + "]" * 900) and {"a": json.loads("[" * 900 + "]" * 900)}},
    "number": lambda: {"response_format": {"a": 10**400}},
    "seed": lambda: {"seed": 10**30},
}


@pytest.mark.timing
@pytest.mark.parametrize("kind", WIDE)
async def test_json_that_is_wide_or_deep_is_refused_by_name_and_holds_nobody_up(edge: Edge, kind: str) -> None:
    content = body(**WIDE[kind]())
    assert len(content) < HttpSettings().max_body_bytes, "not refused for its length"
    longest: list[float] = []
    while min(longest, default=math.inf) >= 1.0 and len(longest) < TRIES:
        longest.append(0.0)
        done = asyncio.Event()

        async def watch(done: asyncio.Event) -> None:
            while not done.is_set():
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                longest[-1] = max(longest[-1], time.perf_counter() - before)

        watching = asyncio.create_task(watch(done))
        answer = await edge.client.post("/v1/chat/completions", content=content, headers=JSON)
        done.set()
        await watching
        assert answer.status_code == 400, kind
        assert answer.json()["error"]["code"] in ("malformed_body", "invalid_field")
        assert answer.json()["error"]["param"]
    assert min(longest) < 1.0, "the loop goes on"
    assert edge.turns.requests == []


async def test_a_body_that_is_too_wide_is_looked_at_no_further(edge: Edge) -> None:
    parts = [{"type": "x"}] * 50_000
    answer = await edge.chat(messages=[{"role": "wizard", "content": parts}], n=0)
    assert answer.status_code == 400
    [violation] = answer.json()["error"]["violations"]
    assert violation == {"field": "messages", "description": f"must have at most {MAX_ITEMS} parts and tool calls"}


async def test_long_text_with_many_commas_is_no_wide_json(edge: Edge) -> None:
    text = "{,[" * 100_000
    assert (await edge.chat(messages=[{"role": "user", "content": text}])).status_code == 200
    assert edge.turns.requests[-1].messages[0].content == text
    assert (await edge.chat(messages=[MESSAGE] * (MAX_ITEMS + 1))).status_code == 400


@pytest.mark.parametrize("field", ["messages", "content", "tools"])
async def test_a_refusal_names_a_hundred_violations_and_counts_the_others(edge: Edge, field: str) -> None:
    wrong = {
        "messages": {"messages": [{"role": "wizard" * 100, "content": "a"}] * 5_000},
        "content": {"messages": [{"role": "user", "content": [{"type": "x" * 2_000}] * 1_000}]},
        "tools": {"tools": [{"type": "x"}] * 5_000},
    }[field]
    answer = await edge.chat(**wrong)
    assert answer.status_code == 400
    violations = answer.json()["error"]["violations"]
    assert len(violations) == 101
    assert violations[-1]["description"].startswith("and ")
    assert violations[-1]["description"].endswith(" more")
    assert len(answer.content) < 128 * 1024


@pytest.mark.parametrize("path", ["/v1/agents", "/v1/tool_servers", "/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("wrong", [{"x" * 500_000: 1}, {"model": {"x" * 500_000: 1}}, {"model": "x" * 500_000}])
async def test_a_refusal_does_not_repeat_what_is_long(edge: Edge, path: str, wrong: dict[str, object]) -> None:
    answer = await edge.client.post(path, json=wrong)
    assert answer.status_code in (400, 404)
    assert len(answer.content) < 8 * 1024


async def test_every_violation_is_named_at_once(edge: Edge) -> None:
    answer = await edge.chat(messages=[{"role": "wizard", "content": "a"}], temperature=9, n=2)
    fields = [violation["field"] for violation in answer.json()["error"]["violations"]]
    assert sorted(fields) == ["messages[0].role", "n", "temperature"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/users:erase"])
async def test_a_body_may_be_gzip_and_is_bounded_unpacked(edge: Edge, path: str) -> None:
    async def status(content: bytes, coding: str = "gzip") -> tuple[int, str]:
        answer = await edge.client.post(path, content=content, headers=JSON | {"content-encoding": coding})
        return answer.status_code, "" if answer.is_success else answer.json()["error"]["code"]

    bomb = zlib.compressobj(wbits=31)
    packed = b"".join([bomb.compress(bytes(1024 * 1024)) for _ in range(64)]) + bomb.flush()
    assert await status(packed) == (413, "message_too_large")
    assert await status(gzip.compress(body())[:-4]) == (400, "malformed_body")
    assert await status(b"\x1f\x8b" + b"nonsense" * 9) == (400, "malformed_body")
    assert await status(body(), "br") == (415, "malformed_body")
    if path == "/v1/chat/completions":
        half = len(body()) // 2
        assert await status(gzip.compress(body()[:half]) + gzip.compress(body()[half:])) == (200, "")
        assert edge.turns.requests[-1].messages[0].content == "Hi"
        assert await status(body(), "identity") == (200, "")


async def test_unknown_query_parameters_are_refused_by_name(edge: Edge) -> None:
    answer = await edge.client.delete("/v1/api_keys/k1?project=p1&x=1")
    assert answer.status_code == 400
    assert [violation["field"] for violation in answer.json()["error"]["violations"]] == ["project", "x"]
    twice = await edge.client.get("/v1/sessions?page_size=1&page_size=2&x=1")
    found = {one["field"]: one["description"] for one in twice.json()["error"]["violations"]}
    assert found == {"page_size": "must be given once", "x": "is not a query parameter of this method"}
    assert (await edge.client.get("/readyz?verbose=1")).status_code == 200, "probes may say what they like"


async def test_refused_requests_have_a_few_lines_of_log() -> None:
    async with running_edge() as edge:
        with capture_logs() as lines:
            for _ in range(300):
                assert (await edge.client.get("/v1/nothing")).status_code == 404
    assert len([line for line in lines if line["event"] == "request"]) < 200


@pytest.mark.parametrize("piece", [b"{},", b"1,", b'"",', b"[", b'{"\\\\":'])
def test_bodies_that_are_decoded_whole_hold_a_bounded_number_of_values(piece: bytes) -> None:
    with pytest.raises(InvalidArgument):
        check_values(b'{"a": [' + piece * (MAX_BODY_VALUES + 1))
    endless = b'"' + b"," * (MAX_BODY_VALUES + 1) + b'\\"' * 1_000_000
    check_values(endless)  # in linear time, though no text in it ends
    check_values(json.dumps({"a": "{,[" * MAX_BODY_VALUES + '\\"' * 1000, "b": [1] * 1000}).encode())


UNREADABLE = {
    "no UTF-8": b'"\xed\xa0\x80"',
    "half a pair": b'{"a": "\\ud800"}',
    "a number beyond doubles": b"[1e999]",
    "nesting": b"[" * 60 + b"]" * 60,
}


async def test_what_is_passed_on_to_providers_is_json_that_they_can_read(edge: Edge) -> None:
    plain = b'{"role": "user", "content": "Hi"}'
    for kind, said in UNREADABLE.items():
        nested = b'{"role": "user", "content": "Hi", "cache_control": %b}' % said
        kept = (
            b'{"role": "assistant", "content": "Hi", "extra_content": '
            b'{"parley": {"kind": "openai", "provider": "p", "data": %b}}}' % said
        )
        for message, more in ((plain, b', "top_k": %b' % said), (nested, b""), (kept, b"")):
            content = b'{"model": "hello", "messages": [%b, %b]%b}' % (message, plain, more)
            answer = await edge.client.post("/v1/chat/completions", content=content, headers=JSON)
            assert answer.status_code == 400, (kind, message, answer.text)
            assert answer.json()["error"]["code"] in ("malformed_body", "invalid_field")
    assert edge.turns.requests == []
