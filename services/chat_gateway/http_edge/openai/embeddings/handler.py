"""POST /v1/embeddings: embeddings by the model of an agent or a provider."""

import msgspec

from access.caller import Caller
from chat_gateway.embedding import EmbeddingOutcome, Embeddings
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.openai.embeddings.request import read_request
from chat_gateway.http_edge.turn_exchange import Exchange
from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.limit_headers import Headers, limit_headers
from chat_gateway.http_edge.wire.turn_headers import PROVIDER_HEADER, read_turn_headers

_encode = msgspec.json.Encoder().encode


class EmbeddingsHandler:
    """Answers requests for embeddings; a client that leaves cancels its own."""

    def __init__(self, embeddings: Embeddings, settings: HttpSettings) -> None:
        self._embeddings = embeddings
        self._settings = settings

    async def serve(self, context: RequestContext, caller: Caller) -> int:
        """Serves one request on behalf of `caller`, and returns the status that it was answered with."""
        exchange = Exchange(context, self._settings, _param_of)
        async with exchange:
            name, request = await exchange.read(
                lambda body: read_request(body, read_turn_headers(context.headers), caller)
            )
            outcome = await exchange.watched(self._embeddings.run(request))
            await exchange.answer(_answer(outcome, name), _headers(outcome))
        return exchange.status


def _answer(outcome: EmbeddingOutcome, model: str) -> bytes:
    vectors = b",".join(
        [b'{"object":"embedding","index":%d,"embedding":%b}' % pair for pair in enumerate(outcome.vectors)]
    )
    tokens = outcome.usage.prompt_tokens
    return b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
        vectors,
        _encode(model),
        tokens,
        tokens,
    )


def _headers(outcome: EmbeddingOutcome) -> Headers:
    headers = limit_headers(outcome.limits)
    headers.append((PROVIDER_HEADER, outcome.provider.encode("latin-1")))
    if outcome.agent_revision:
        headers.append((b"x-agent-revision", b"%d" % outcome.agent_revision))
    return headers


def _param_of(field: str) -> str:
    return "model" if field in ("agent_id", "agent_revision", "model.name") else field
