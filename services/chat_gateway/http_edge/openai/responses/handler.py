"""POST /v1/responses: one turn, answered whole or streamed. Plain ASGI, as chat completions."""

import contextlib

from access.caller import Caller
from chat_gateway.background import BackgroundTurns
from chat_gateway.clients.journal_client import JournalClient
from chat_gateway.finishing import FinishingTurns
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.openai.responses.answer import encode_response, state_response, whole_response
from chat_gateway.http_edge.openai.responses.echo import echo_of
from chat_gateway.http_edge.openai.responses.events import ResponseEvents
from chat_gateway.http_edge.openai.responses.ids import TurnRef
from chat_gateway.http_edge.openai.responses.journal_events import response_events
from chat_gateway.http_edge.openai.responses.request import AskedResponse, FieldNames, read_response_request
from chat_gateway.http_edge.turn_exchange import TurnExchange
from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.turn_headers import read_turn_headers, state_headers
from chat_gateway.model.background import TurnStatus
from chat_gateway.model.errors import ResponseUnfinished
from chat_gateway.model.not_found import ResponseNotFound
from chat_gateway.model.provider_errors import FieldsUnsupported
from chat_gateway.model.turn import TurnOutcome
from contract.reasons import Reason
from servicekit.errors import ServiceError, Violation

_GONE = (Reason.SESSION_NOT_FOUND, Reason.TURN_NOT_FOUND)


class Responses:
    """Makes responses. Every request is served in its own task, which a client that leaves cancels."""

    def __init__(
        self,
        turns: FinishingTurns,
        settings: HttpSettings,
        background: BackgroundTurns | None = None,
        journals: JournalClient | None = None,
    ) -> None:
        self._background = background
        self._journals = journals
        self._turns = turns
        self._settings = settings

    async def serve(self, context: RequestContext, caller: Caller) -> int:
        """Serves one request on behalf of `caller`, and returns the status that it was answered with."""
        names, bounds = FieldNames(), self._settings.request_bounds
        exchange = TurnExchange(context, self._turns, self._settings, names.param_of)
        async with exchange:
            asked = await exchange.read(
                lambda body: read_response_request(body, read_turn_headers(context.headers), caller, bounds, names)
            )
            try:
                if asked.turn.background:
                    await self._submit(exchange, asked)
                elif asked.streamed:
                    await exchange.stream(asked.turn, ResponseEvents(asked.echo))
                else:
                    outcome = await exchange.run(asked.turn)
                    await exchange.respond(outcome, encode_response(whole_response(outcome, asked.echo)))
            except ServiceError as error:
                if not asked.turn.after_turn or error.reason not in _GONE:
                    raise
                raise await self._why_gone(asked) from None
        return exchange.status

    async def _why_gone(self, asked: AskedResponse) -> ServiceError:
        """Returns why the previous response can't be continued: it is not stored, or not yet."""
        turn, previous = asked.turn, asked.echo.previous_response_id or ""
        if self._background is not None:
            with contextlib.suppress(ServiceError):
                state = await self._background.state(turn.project, turn.session_id, turn.user_id, turn.after_turn)
                if state.status in (TurnStatus.QUEUED, TurnStatus.RUNNING):
                    return ResponseUnfinished(previous, turn.session_id)
        return ResponseNotFound(previous)

    async def _submit(self, exchange: TurnExchange, asked: AskedResponse) -> None:
        """Queues a turn, and answers with how far it is, or with its events until it has ended."""
        background, journals = self._background, self._journals
        if background is None or journals is None:
            raise FieldsUnsupported([Violation("background", "is not supported by this gateway")])
        state = await exchange.watched(background.submit(asked.turn))
        if not asked.streamed:
            echo = asked.echo if state.outcome is None else echo_of(state.outcome.notes, state.agent_id)
            await exchange.answer(encode_response(state_response(state, echo)), state_headers(state))
            return
        turn, user_id, project = TurnRef(state.turn_id, state.session_id), asked.turn.user_id, asked.turn.project

        async def read() -> tuple[TurnOutcome, str]:
            ended = await background.state(project, turn.session_id, user_id, turn.turn_id)
            if ended.outcome is None:
                raise ended.error or ResponseNotFound(turn.response_id)
            return ended.outcome, ended.agent_id

        events = await response_events(journals, project, turn, user_id, read)
        await exchange.relay(state_headers(state), events)
