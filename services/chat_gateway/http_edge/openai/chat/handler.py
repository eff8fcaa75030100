"""POST /v1/chat/completions: one turn, answered whole or streamed. Plain ASGI, because every turn takes this path."""

from access.caller import Caller
from chat_gateway.background import BackgroundTurns
from chat_gateway.finishing import FinishingTurns
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.openai.chat.answer import CompletionChunks, completion, encode_state
from chat_gateway.http_edge.openai.chat.request import decode_request, extra_fields, param_of, to_turn_request
from chat_gateway.http_edge.openai.chat.schema import ChatCompletionRequest
from chat_gateway.http_edge.openai.chat.shape_faults import all_faults
from chat_gateway.http_edge.turn_exchange import TurnExchange
from chat_gateway.http_edge.wire.bodies import BodyTooWide
from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.errors import MalformedBody
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders, read_turn_headers, state_headers
from chat_gateway.model.rules import RequestBounds
from chat_gateway.model.turn import TurnRequest


class ChatCompletions:
    """Answers chat completions. Every request is served in its own task, which a client that leaves cancels."""

    def __init__(
        self, turns: FinishingTurns, settings: HttpSettings, background: BackgroundTurns | None = None
    ) -> None:
        self._turns = turns
        self._background = background
        self._settings = settings

    async def serve(self, context: RequestContext, caller: Caller) -> int:
        """Serves one request on behalf of `caller`, and returns the status that it was answered with."""
        exchange = TurnExchange(context, self._turns, self._settings, param_of)
        async with exchange:
            chat, request = await exchange.read(
                lambda body: read_request(
                    body, read_turn_headers(context.headers), caller, self._settings.request_bounds
                )
            )
            if chat.background and self._background is not None:
                state = await exchange.watched(self._background.submit(request))
                await exchange.answer(encode_state(state), state_headers(state), status=202)
            elif chat.stream:
                await exchange.stream(request, _chunks(chat))
            else:
                outcome = await exchange.run(request)
                await exchange.respond(outcome, completion(outcome, chat.model))
        return exchange.status


def _chunks(chat: ChatCompletionRequest) -> CompletionChunks:
    options = chat.stream_options
    include_usage = options is not None and options.include_usage is True
    return CompletionChunks(chat.model, include_usage=include_usage, choices=chat.n or 1)


def read_request(
    body: bytes, headers: TurnHeaders, caller: Caller, bounds: RequestBounds
) -> tuple[ChatCompletionRequest, TurnRequest]:
    """Returns a body, and the turn that it asks for. Raises every violation at once."""
    try:
        chat, nested = decode_request(body)
    except BodyTooWide:
        raise
    except MalformedBody as error:
        raise all_faults(error, body, headers, caller, bounds) from None
    return chat, to_turn_request(chat, headers, caller, extra_fields(body), bounds, nested)
