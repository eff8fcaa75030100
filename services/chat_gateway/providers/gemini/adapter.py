"""The adapter of Gemini's generateContent."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from chat_gateway.providers.adapter import AnswerStream, WireRequest
from chat_gateway.providers.gemini.answer import ContentStream, read_response
from chat_gateway.providers.gemini.embeddings import encode_embedding_call, read_embeddings
from chat_gateway.providers.gemini.request import KIND, encode_call
from chat_gateway.providers.provider import EmbeddingAnswer, EmbeddingCall, ModelAnswer, ModelCall
from servicekit.errors import Violations


class GeminiAdapter:
    """Implements `Adapter`. `extra_body` is laid under every request; its `generationConfig` under the call's own."""

    kind = KIND
    max_embedding_inputs = 100

    def __init__(self, provider: str, extra_body: Mapping[str, Any] | None = None) -> None:
        self._provider = provider
        self._extra_body = dict(extra_body or {})

    def credentials(self, key: str | None) -> Mapping[str, str]:
        return {"x-goog-api-key": key} if key else {}

    def request(self, call: ModelCall, *, stream: bool) -> WireRequest:
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        path = f"/{_resource(call.model)}:{method}"
        return WireRequest(path, encode_call(call, self._provider, self._extra_body))

    def read(self, body: bytes, call: ModelCall) -> ModelAnswer:
        return read_response(body, call, self._provider)

    def stream(self, call: ModelCall) -> AnswerStream:
        return ContentStream(call, self._provider)

    def embedding_request(self, call: EmbeddingCall) -> WireRequest:
        resource = _resource(call.model)
        return WireRequest(f"/{resource}:batchEmbedContents", encode_embedding_call(call, resource))

    def read_embeddings(self, body: bytes, call: EmbeddingCall) -> EmbeddingAnswer:
        return read_embeddings(body, call, self._provider)


def _resource(model: str) -> str:
    """The model's place under the base URL: `models/` unless the name says its collection itself."""
    if "/" not in model:
        return f"models/{quote(model, safe='')}"
    if any(segment in ("", ".", "..") for segment in model.split("/")):
        found = Violations()
        found.add("model.name", "must be a model's name, or collection/name")
        found.check()
    return quote(model, safe="/")
