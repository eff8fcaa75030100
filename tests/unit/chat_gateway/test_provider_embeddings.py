"""Embeddings of every kind of provider over real connections: what is asked, and odd answers."""

import base64
import json
import struct
from typing import Any

import pytest

from chat_gateway.model.provider_errors import (
    EmbeddingsUnsupported,
    ProviderBadResponse,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
    UnsupportedField,
)
from chat_gateway.providers.http_client import open_client
from chat_gateway.providers.keys import Keys
from chat_gateway.providers.provider import EmbeddingAnswer, EmbeddingCall, VectorFormat
from chat_gateway.providers.resilient import ResilienceBounds, ResilientProvider
from servicekit.errors import InvalidArgument, ServiceError
from tests.unit.chat_gateway.raw_provider import Server, listening, provider_at

NUMBERS = [0.5, -1.25]
BASE64 = base64.b64encode(struct.pack("<2f", *NUMBERS)).decode()
TEXTS = EmbeddingCall("m", ["a", "b"])


def said(body: Any, status: int = 200) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status} Said\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text


def listed(*vectors: Any, **more: Any) -> dict[str, Any]:
    return {"data": [{"index": place, "embedding": one} for place, one in enumerate(vectors)]} | more


async def embed(
    call: EmbeddingCall, *answers: bytes, **settings: Any
) -> tuple[EmbeddingAnswer, list[tuple[str, dict[str, Any]]]]:
    """Returns the answer, and path and body of each request."""
    server = Server(*answers)
    async with listening(server) as url, open_client(10) as client:
        answer = await provider_at(url, client, **settings).embed(call)
    asked = []
    for request in server.requests:
        head, _, body = request.partition(b"\r\n\r\n")
        asked.append((head.split(b" ")[1].decode(), json.loads(body)))
    return answer, asked


CALLS: dict[str, tuple[dict[str, Any], EmbeddingCall, dict[str, Any]]] = {
    "openai": (
        {"dialect": "openai"},
        EmbeddingCall("m", ["a", "b"], VectorFormat.BASE64, 2, "ann"),
        {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 2, "user": "ann"},
    ),
    "tokens": ({"dialect": "openai"}, EmbeddingCall("m", [[1, 2], [3]]), {"model": "m", "input": [[1, 2], [3]]}),
    "mistral": (
        {"dialect": "mistral"},
        EmbeddingCall("m", ["a", "b"], VectorFormat.BASE64, 2),
        {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "output_dimension": 2},
    ),
    "a server of which nothing is known": (
        {},
        EmbeddingCall("m", ["a", "b"], VectorFormat.BASE64, extra={"input_type": b'"query"'}),
        {"model": "m", "input": ["a", "b"], "input_type": "query"},
    ),
    "what chats have in every body is not sent": (
        {"extra_body": {"max_tokens": 5}},
        TEXTS,
        {"model": "m", "input": ["a", "b"]},
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_what_a_dialect_is_asked(name: str) -> None:
    settings, call, body = CALLS[name]
    sent = BASE64 if "encoding_format" in body else NUMBERS
    _, asked = await embed(call, said(listed(sent, sent)), **settings)
    assert asked == [("/v1/embeddings", body)]


@pytest.mark.parametrize("sent", [NUMBERS, BASE64], ids=["numbers", "base64"])
@pytest.mark.parametrize("asked", VectorFormat)
async def test_vectors_come_as_they_were_asked_for_however_the_provider_writes_them(
    sent: Any, asked: VectorFormat
) -> None:
    call = EmbeddingCall("m", ["a"], asked)
    answer, _ = await embed(call, said(listed(sent, usage={"prompt_tokens": "3"}, model="m-1")))
    assert json.loads(answer.vectors[0]) == (BASE64 if asked is VectorFormat.BASE64 else NUMBERS)
    assert (answer.usage.prompt_tokens, answer.model, answer.provider) == (3, "m-1", "local")


ODD: dict[str, Any] = {
    "in another order": {"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}]},
    "indices as text": {"data": [{"index": "1", "embedding": [2]}, {"index": "0.0", "embedding": [1]}]},
    "without indices": {"data": [{"embedding": [1]}, {"embedding": [2]}]},
    "all of index 0": {"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}]},
    "odd usage and model": listed([1], [2], usage=[], model=None, error=None),
}


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_form_costs_no_answer(name: str) -> None:
    answer, _ = await embed(TEXTS, said(ODD[name]))
    assert answer.vectors == (b"[1]", b"[2]")
    assert answer.model == "m"


def coded(value: Any) -> bytes:
    return json.dumps(value).encode()


NAN = base64.b64encode(struct.pack("<f", float("nan"))).decode()
FAILS: dict[str, tuple[int, bytes, type[ServiceError]]] = {
    "too few": (200, coded(listed([1])), ProviderBadResponse),
    "too many": (200, coded(listed([1], [2], [3])), ProviderBadResponse),
    "no numbers": (200, coded(listed([], [])), ProviderBadResponse),
    "null": (200, coded(listed(None, [1])), ProviderBadResponse),
    "texts": (200, coded(listed(["a"], [1])), ProviderBadResponse),
    "NaN": (200, coded(listed([float("nan")], [1])), ProviderBadResponse),
    "NaN as base64": (200, coded(listed(NAN, [1])), ProviderBadResponse),
    "half a number": (200, coded(listed("AAAA", [1])), ProviderBadResponse),
    "no JSON": (200, b"<html>", ProviderBadResponse),
    "an error in place of an answer": (200, coded({"error": {"message": "no", "code": 429}}), ProviderRateLimited),
    "429": (429, b"{}", ProviderRateLimited),
    "400": (400, coded({"error": {"message": "no such size", "code": "bad"}}), ProviderRejected),
    "503": (503, b"{}", ProviderUnavailable),
}


@pytest.mark.parametrize("kind", ["openai", "gemini"])
@pytest.mark.parametrize("name", FAILS)
async def test_what_is_no_answer(name: str, kind: str) -> None:
    status, body, error = FAILS[name]
    if kind == "gemini":
        body = body.replace(b'"embedding"', b'"values"').replace(b'"data"', b'"embeddings"')
    with pytest.raises(error):
        await embed(TEXTS, said(body, status), kind=kind)


async def test_gemini_is_asked_in_batches() -> None:
    call = EmbeddingCall("text-1", [f"t{n}" for n in range(101)], VectorFormat.BASE64, 2, extra={"task_type": b'"X"'})
    first = {"embeddings": [{"values": NUMBERS}] * 100, "usageMetadata": {"promptTokenCount": 100}}
    answer, asked = await embed(
        call, said(first), said({"embeddings": [{"values": NUMBERS}]}), kind="gemini", extra_body={"a": 1}
    )
    assert [path for path, _ in asked] == ["/v1/models/text-1:batchEmbedContents"] * 2
    assert [len(body["requests"]) for _, body in asked] == [100, 1]
    assert asked[1][1]["requests"][0] == {
        "model": "models/text-1",
        "content": {"parts": [{"text": "t100"}]},
        "outputDimensionality": 2,
        "taskType": "X",
    }
    assert len(answer.vectors) == 101
    assert json.loads(answer.vectors[-1]) == BASE64
    assert answer.usage.prompt_tokens == 100


@pytest.mark.parametrize(
    ("call", "fields"),
    [
        (EmbeddingCall("m", [[1]]), {"input"}),
        (EmbeddingCall("m", ["a"], user="ann", extra={"top": b"1"}), {"user", "top"}),
    ],
)
async def test_what_gemini_has_no_word_for_is_refused_by_name(call: EmbeddingCall, fields: set[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await embed(call, kind="gemini")
    assert {violation.field for violation in caught.value.violations} == fields


async def test_a_field_that_openai_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedField):
        await embed(EmbeddingCall("m", ["a"], extra={"input_type": b"1"}), dialect="openai")


async def test_a_kind_without_embeddings_is_named() -> None:
    with pytest.raises(EmbeddingsUnsupported, match="anthropic"):
        await embed(TEXTS, kind="anthropic")


async def test_it_is_tried_again_as_answers_are() -> None:
    server = Server(said({}, 503), said({}, 429), said(listed([1], [2])))
    async with listening(server) as url, open_client(10) as client:
        keys = Keys("local", lambda _: provider_at(url, client))
        provider = ResilientProvider("local", keys, ResilienceBounds(first_backoff=0.001, max_backoff=0.002))
        answer = await provider.embed(TEXTS)
    assert answer.vectors == (b"[1]", b"[2]")
    assert provider.retries == 2
