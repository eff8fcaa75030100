"""Pages of other origins: what browsers ask before they call, and what they let pages read."""

from collections.abc import AsyncIterator

import httpx
import pytest

from access.authenticator import Authenticator
from chat_gateway.http_edge.wire.connections import ConnectionLimits
from chat_gateway.http_edge.wire.cors import EXPOSED
from tests.service.chat_gateway.http_edge.edge import Edge, running_edge

PAGE = "https://app.example.com"
STREAM = {"model": "hello", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
SAFELISTED = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified"}
OF_NO_USE = {"connection", "date", "transfer-encoding", "vary", "x-accel-buffering"}


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge(cors_origins=[PAGE, "http://localhost:3000"]) as running:
        yield running


async def preflight(edge: Edge, origin: str, path: str = "/v1/chat/completions") -> httpx.Response:
    """Asks as a browser does before it sends what a page wants to send."""
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-session-id,x-stainless-lang",
    }
    return await edge.client.options(path, headers=asked)


def readable(answer: httpx.Response) -> set[str]:
    """The headers that a page may read."""
    return {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}


async def test_it_is_off_by_default() -> None:
    async with running_edge() as edge:
        asked = await preflight(edge, PAGE)
        answer = await edge.chat(headers={"Origin": PAGE})
    assert (asked.status_code, answer.status_code) == (405, 200)
    for one in (asked, answer):
        assert not [name for name in one.headers if name.startswith("access-control") or name == "vary"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/agents/a"])
async def test_a_preflight_needs_no_credentials(path: str) -> None:
    async with running_edge(cors_origins=[PAGE], authenticator=Authenticator({})) as edge:
        answer = await preflight(edge, PAGE, path)
        refused = await edge.chat(headers={"Origin": PAGE})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE"
    assert "x-stainless-lang" in answer.headers["access-control-allow-headers"]
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE


async def test_pages_read_answers_streams_and_errors_with_their_headers(edge: Edge) -> None:
    page = {"Origin": PAGE}
    plain = await edge.chat(headers=page)
    streamed = await edge.client.post("/v1/chat/completions", json=STREAM, headers=page)
    wrong = await edge.chat(headers=page, model=7)
    unknown = await edge.client.get("/v1/nothing", headers=page)
    health = await edge.client.get("/livez", headers=page)
    assert [one.status_code for one in (plain, streamed, wrong, unknown, health)] == [200, 200, 400, 404, 200]
    for answer in (plain, streamed, wrong, unknown, health):
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in answer.headers["vary"]
        own = {name for name in answer.headers if not name.startswith("access-control-")}
        assert own - SAFELISTED - OF_NO_USE <= readable(answer)
    assert {"x-session-id", "x-agent-revision", "x-parley-provider", "retry-after"} <= readable(plain)
    assert readable(plain) == {name.lower() for name in EXPOSED}


@pytest.mark.parametrize("origin", ["https://evil.example.com", "https://app.example.com.evil", "null", ""])
async def test_another_origin_is_not_allowed(edge: Edge, origin: str) -> None:
    asked = await preflight(edge, origin)
    answer = await edge.chat(headers={"Origin": origin})
    assert asked.status_code == 405
    for one in (asked, answer):
        assert not [name for name in one.headers if name.startswith("access-control")]
        assert "Origin" in one.headers["vary"], "a cache must not give it to a page that is allowed"


async def test_two_origins_are_refused(edge: Edge) -> None:
    answer = await edge.client.get("/v1/agents", headers=[("Origin", PAGE), ("Origin", "http://localhost:3000")])
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers


async def test_a_star_allows_every_origin() -> None:
    async with running_edge(cors_origins=["*"]) as edge:
        asked = await preflight(edge, "null")
        answer = await edge.chat(headers={"Origin": PAGE})
    assert (asked.status_code, answer.status_code) == (204, 200)
    assert asked.headers["access-control-allow-origin"] == answer.headers["access-control-allow-origin"] == "*"


async def test_what_is_refused_for_too_many_connections_can_be_read() -> None:
    async with running_edge(cors_origins=[PAGE], limits=ConnectionLimits(0, 0)) as edge:
        answer = await edge.chat(headers={"Origin": PAGE})
    assert answer.status_code == 503
    assert answer.headers["access-control-allow-origin"] == PAGE
