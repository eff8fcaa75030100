"""Embeddings as OpenAI writes them."""

from typing import Any

import msgspec

from chat_gateway.model.provider_errors import UnsupportedField
from chat_gateway.model.turn import Usage
from chat_gateway.providers.generous import count, mapping, text
from chat_gateway.providers.openai.dialect import Dialect
from chat_gateway.providers.provider import EmbeddingAnswer, EmbeddingCall, VectorFormat
from chat_gateway.providers.vectors import as_asked, check_count, read_response

_encode = msgspec.json.Encoder().encode


class _Vector(msgspec.Struct):
    embedding: msgspec.Raw = msgspec.Raw()
    index: Any = None


class _Embeddings(msgspec.Struct):
    data: list[_Vector] | None = None
    model: Any = None
    usage: Any = None
    error: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Embeddings).decode


def encode_embedding_call(call: EmbeddingCall, dialect: Dialect, provider: str) -> bytes:
    """Returns the request body of a call to the provider of that name. Raises `UnsupportedField`."""
    if call.extra and not dialect.extra_fields:
        raise UnsupportedField(provider, call.extra)
    body: dict[str, Any] = {"model": call.model, "input": call.inputs}
    if call.encoding is VectorFormat.BASE64 and dialect.base64_vectors:
        body["encoding_format"] = call.encoding.value
    if call.dimensions is not None:
        body[dialect.dimensions_field] = call.dimensions
    if call.user:
        body["user"] = call.user
    body.update({name: msgspec.Raw(value) for name, value in call.extra.items()})
    return _encode(body)


def read_embeddings(body: bytes, call: EmbeddingCall, provider: str) -> EmbeddingAnswer:
    """Returns a vector for each input, whatever their order and form. Raises `BadAnswer` and `ReportedError`."""
    said = read_response(body, _decode)
    vectors = said.data or []
    check_count(vectors, call.inputs)
    places = [count(vector.index) for vector in vectors]
    # Indices count only where they are all there: some servers number none, or all of them 0.
    if sorted(place for place in places if place is not None) == list(range(len(vectors))):
        vectors = [vector for _, vector in sorted(zip(places, vectors, strict=True), key=lambda pair: pair[0] or 0)]
    usage = mapping(said.usage)
    tokens = count(usage.get("prompt_tokens")) or count(usage.get("total_tokens")) or 0
    return EmbeddingAnswer(
        tuple([as_asked(vector.embedding, call.encoding) for vector in vectors]),
        Usage(tokens),
        text(said.model)[:128] or call.model,
        provider,
    )
