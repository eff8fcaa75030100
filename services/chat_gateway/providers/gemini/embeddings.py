"""Embeddings by batchEmbedContents."""

from typing import Any, Final

import msgspec

from chat_gateway.model.turn import Usage
from chat_gateway.providers.gemini.request import KIND
from chat_gateway.providers.generous import count, mapping
from chat_gateway.providers.provider import EmbeddingAnswer, EmbeddingCall
from chat_gateway.providers.vectors import as_asked, check_count, read_response
from servicekit.errors import Violations

OWN_FIELDS: Final = {"task_type": "taskType", "title": "title"}
"""Fields of a request that only this API has, by the names that its SDKs give them."""

_encode = msgspec.json.Encoder().encode


class _Vector(msgspec.Struct):
    values: msgspec.Raw = msgspec.Raw()


class _Embeddings(msgspec.Struct):
    embeddings: list[_Vector] | None = None
    usage: Any = msgspec.field(default=None, name="usageMetadata")
    error: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Embeddings).decode


def encode_embedding_call(call: EmbeddingCall, resource: str) -> bytes:
    """Returns the body of a call of the model at `resource`. Raises `InvalidArgument` for what it cannot express."""
    found = Violations()
    if not all(isinstance(one, str) for one in call.inputs):
        found.add("input", f"must be texts for providers of kind {KIND}, which take no tokens")
    if call.user:
        found.add("user", f"is not taken by providers of kind {KIND}")
    own: dict[str, Any] = {"model": resource}
    if call.dimensions is not None:
        own["outputDimensionality"] = call.dimensions
    for name, value in call.extra.items():
        if name in OWN_FIELDS:
            own[OWN_FIELDS[name]] = msgspec.Raw(value)
        else:
            found.add(name, f"is not taken by providers of kind {KIND}")
    found.check()
    return _encode({"requests": [{**own, "content": {"parts": [{"text": one}]}} for one in call.inputs]})


def read_embeddings(body: bytes, call: EmbeddingCall, provider: str) -> EmbeddingAnswer:
    """Returns a vector for each input. Raises `BadAnswer` and `ReportedError`."""
    said = read_response(body, _decode)
    vectors = said.embeddings or []
    check_count(vectors, call.inputs)
    usage = mapping(said.usage)
    tokens = count(usage.get("promptTokenCount")) or count(usage.get("totalTokenCount")) or 0
    return EmbeddingAnswer(
        tuple([as_asked(vector.values, call.encoding) for vector in vectors]), Usage(tokens), call.model, provider
    )
