"""POST /v1/responses/compact: a conversation made shorter by its agent's model, without being stored."""

from typing import Any, Final

import msgspec

from access.caller import Caller
from chat_gateway.convert.messages import turn_from_proto
from chat_gateway.finishing import FinishingTurns
from chat_gateway.http_edge.admin.responses.routes import read_response
from chat_gateway.http_edge.dependencies import Dependencies
from chat_gateway.http_edge.openai.responses.compaction import (
    AskedCompaction,
    compacted,
    compacting_turn,
    read_compaction_request,
)
from chat_gateway.http_edge.openai.responses.operation import RESPONSES_PATH, responses_operation
from chat_gateway.http_edge.openai.responses.request import FieldNames
from chat_gateway.http_edge.turn_exchange import TurnExchange
from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.openapi import SCHEMA_REF
from chat_gateway.http_edge.wire.turn_headers import read_turn_headers
from chat_gateway.model.turn import Message, TextPart
from parley.session.v1 import session_service_pb2 as pb

COMPACT_PATH: Final = f"{RESPONSES_PATH}/compact"
MAX_TURNS: Final = 200
"""How many turns of a conversation are read, the newest; a longer one has had to be made shorter before."""
_TURNS_A_READ: Final = 50

_encode = msgspec.json.Encoder().encode


class Compactions:
    """Makes conversations shorter."""

    def __init__(self, turns: FinishingTurns, deps: Dependencies) -> None:
        self._turns = turns
        self._deps = deps

    async def serve(self, context: RequestContext, caller: Caller) -> int:
        """Serves one request on behalf of `caller`, and returns the status that it was answered with."""
        names, settings = FieldNames(), self._deps.settings
        exchange = TurnExchange(context, self._turns, settings, names.param_of)
        async with exchange:
            headers, bounds = read_turn_headers(context.headers), settings.request_bounds
            asked = await exchange.read(lambda body: read_compaction_request(body, headers, caller, bounds, names))
            before = await self._before(asked) if asked.previous_response_id else []
            messages = (*before, *asked.messages)
            outcome = await exchange.run(compacting_turn(asked, messages))
            await exchange.respond(outcome, _encode(compacted(outcome, messages)))
        return exchange.status

    async def _before(self, asked: AskedCompaction) -> list[Message]:
        """Returns what was said up to the response that is gone on from, as text. Raises `ResponseNotFound`."""
        project, user_id = asked.turn.project, asked.turn.user_id
        found = await read_response(self._deps, project, asked.previous_response_id, user_id or None)
        request = pb.ListMessagesRequest(
            project=project,
            session_id=found.session.id,
            user_id=found.session.user_id,
            page_size=_TURNS_A_READ,
            order=pb.ORDER_NEWEST_FIRST,
            from_turn=found.turn.number,
            omit_parts=True,
        )
        turns: list[Any] = []
        while len(turns) < MAX_TURNS:
            page = await self._deps.session_svc.call(self._deps.stubs.sessions.ListMessages, request)
            turns += page.turns
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        return [_as_text(one) for turn in reversed(turns[:MAX_TURNS]) for one in turn_from_proto(turn).messages]


def compact_operation() -> dict[str, Any]:
    """Returns the operation as the OpenAPI document describes it, without its security."""
    made = responses_operation()
    answer = {"application/json": {"schema": {"$ref": SCHEMA_REF.format(name="CompactedResponse")}}}
    body = {"application/json": {"schema": {"$ref": SCHEMA_REF.format(name="CompactionRequest")}}}
    return made | {
        "summary": "Compact Response",
        "description": "Makes a conversation shorter: what users have said, word for word, and an opaque item with a "
        "summary of all of it, to be sent as the input of later responses. Nothing is stored.",
        "operationId": "compact_response",
        "requestBody": {"required": True, "content": body},
        "responses": made["responses"] | {"200": {"description": "The shorter conversation.", "content": answer}},
    }


def _as_text(message: Message) -> Message:
    """Returns a message of the history without its images, sound and files, which the summary can't have."""
    if not message.parts:
        return message
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    others = len(message.parts) - len(texts)
    note = [f"[{others} images or files that were sent then]"] if others else []
    return Message(message.role, "\n".join([*texts, *note]))
