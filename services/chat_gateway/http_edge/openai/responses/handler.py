"""POST /v1/responses: one turn, answered whole or streamed. Plain ASGI, as chat completions."""

import asyncio

from access.caller import Caller
from chat_gateway.finishing import FinishingTurns
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.openai.responses.answer import encode_response, whole_response
from chat_gateway.http_edge.openai.responses.events import ResponseEvents
from chat_gateway.http_edge.openai.responses.request import FieldNames, read_response_request
from chat_gateway.http_edge.turn_exchange import TurnExchange
from chat_gateway.http_edge.wire.bodies import is_large
from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.turn_headers import read_turn_headers
from chat_gateway.model.errors import ResponseNotFound
from contract.reasons import Reason
from servicekit.errors import ServiceError

_GONE = (Reason.SESSION_NOT_FOUND, Reason.TURN_NOT_FOUND)


class Responses:
    """Makes responses. Every request is served in its own task, which a client that leaves cancels."""

    def __init__(self, turns: FinishingTurns, settings: HttpSettings) -> None:
        self._turns = turns
        self._settings = settings

    async def serve(self, context: RequestContext, caller: Caller) -> int:
        """Serves one request on behalf of `caller`, and returns the status that it was answered with."""
        names, bounds = FieldNames(), self._settings.request_bounds
        exchange = TurnExchange(context, self._turns, self._settings, names.param_of)
        async with exchange:
            body = await exchange.body()
            headers = read_turn_headers(context.headers)
            if is_large(body):
                asked = await asyncio.to_thread(read_response_request, body, headers, caller, bounds, names)
            else:
                asked = read_response_request(body, headers, caller, bounds, names)
            try:
                if asked.streamed:
                    await exchange.stream(asked.turn, ResponseEvents(asked.echo))
                else:
                    outcome = await exchange.run(asked.turn)
                    await exchange.respond(outcome, encode_response(whole_response(outcome, asked.echo)))
            except ServiceError as error:
                previous = asked.echo.previous_response_id
                raise ResponseNotFound(previous) if previous and error.reason in _GONE else error from None
        return exchange.status
