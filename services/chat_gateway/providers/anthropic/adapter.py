"""The adapter of Anthropic's Messages API."""

from collections.abc import Mapping
from typing import Any, Final

from chat_gateway.model.provider_errors import EmbeddingsUnsupported
from chat_gateway.providers.adapter import AnswerStream, WireRequest
from chat_gateway.providers.anthropic.answer import MessageStream, read_message
from chat_gateway.providers.anthropic.request import KIND, encode_call
from chat_gateway.providers.provider import EmbeddingAnswer, EmbeddingCall, ModelAnswer, ModelCall

API_VERSION: Final = "2023-06-01"


class AnthropicAdapter:
    """Implements `Adapter`. `extra_body` is laid over every request (`thinking`, for one, or `max_tokens`)."""

    kind = KIND
    max_embedding_inputs = 0

    def __init__(self, provider: str, extra_body: Mapping[str, Any] | None = None) -> None:
        self._provider = provider
        self._extra_body = dict(extra_body or {})

    def credentials(self, key: str | None) -> Mapping[str, str]:
        headers = {"anthropic-version": API_VERSION}
        return {**headers, "x-api-key": key} if key else headers

    def request(self, call: ModelCall, *, stream: bool) -> WireRequest:
        return WireRequest("/messages", encode_call(call, self._provider, self._extra_body, stream=stream))

    def read(self, body: bytes, call: ModelCall) -> ModelAnswer:
        return read_message(body, call, self._provider)

    def stream(self, call: ModelCall) -> AnswerStream:
        return MessageStream(call, self._provider)

    def embedding_request(self, call: EmbeddingCall) -> WireRequest:
        raise EmbeddingsUnsupported(self._provider, KIND)

    def read_embeddings(self, body: bytes, call: EmbeddingCall) -> EmbeddingAnswer:
        raise EmbeddingsUnsupported(self._provider, KIND)
