"""The kind `openai`: chat completions."""

from collections.abc import Mapping

from chat_gateway.providers.adapter import AnswerStream, WireRequest
from chat_gateway.providers.openai.answer import CompletionStream, read_answer
from chat_gateway.providers.openai.dialect import Dialects
from chat_gateway.providers.openai.request import KIND, encode_call
from chat_gateway.providers.provider import ModelAnswer, ModelCall

_PATH = "/chat/completions"


class OpenAIAdapter:
    """Implements `Adapter` for one provider."""

    kind = KIND

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
        return CompletionStream(call.model, self._dialects.of(call.model), self._provider)
