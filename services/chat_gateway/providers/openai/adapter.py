"""The kind `openai`: chat completions."""

from collections.abc import Mapping
from typing import Final

from chat_gateway.providers.adapter import AnswerStream, WireRequest
from chat_gateway.providers.openai.answer import CompletionStream, read_answer
from chat_gateway.providers.openai.dialect import Dialects
from chat_gateway.providers.openai.embeddings import encode_embedding_call, read_embeddings
from chat_gateway.providers.openai.request import KIND, encode_call
from chat_gateway.providers.provider import EmbeddingAnswer, EmbeddingCall, ModelAnswer, ModelCall

_PATH = "/chat/completions"
_EMBEDDINGS_PATH = "/embeddings"
MAX_EMBEDDING_INPUTS: Final = 2048
"""What OpenAI takes, and so what callers may send."""


class OpenAIAdapter:
    """Implements `Adapter` for one provider."""

    kind = KIND
    max_embedding_inputs = MAX_EMBEDDING_INPUTS

    def __init__(self, provider: str, dialects: Dialects, *, azure_key: bool = False) -> None:
        self._provider = provider
        self._dialects = dialects
        self._azure_key = azure_key

    def credentials(self, key: str | None) -> Mapping[str, str]:
        if not key:
            return {}
        return {"api-key": key} if self._azure_key else {"Authorization": f"Bearer {key}"}

    def request(self, call: ModelCall, *, stream: bool) -> WireRequest:
        return WireRequest(_PATH, encode_call(call, self._dialects.of(call.model), self._provider, stream=stream), {})

    def read(self, body: bytes, call: ModelCall) -> ModelAnswer:
        return read_answer(body, call.model, self._dialects.of(call.model), self._provider)

    def stream(self, call: ModelCall) -> AnswerStream:
        return CompletionStream(call.model, self._dialects.of(call.model), self._provider, call.tools)

    def embedding_request(self, call: EmbeddingCall) -> WireRequest:
        return WireRequest(
            _EMBEDDINGS_PATH, encode_embedding_call(call, self._dialects.of(call.model), self._provider), {}
        )

    def read_embeddings(self, body: bytes, call: EmbeddingCall) -> EmbeddingAnswer:
        return read_embeddings(body, call, self._provider)
