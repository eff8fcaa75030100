"""A turn's outcome as a response."""

import math
from datetime import UTC, datetime
from typing import Final

import msgspec

from chat_gateway.http_edge.openai.responses.answer_schema import (
    ConversationOf,
    IncompleteDetails,
    InputTokensDetails,
    Item,
    OutputTokensDetails,
    Response,
    ResponseError,
    ResponseUsage,
)
from chat_gateway.http_edge.openai.responses.echo import RequestEcho
from chat_gateway.http_edge.openai.responses.ids import TurnRef
from chat_gateway.http_edge.openai.responses.logprobs import logprobs_of
from chat_gateway.http_edge.openai.responses.options import ENCRYPTED_REASONING, LOGPROBS
from chat_gateway.http_edge.openai.responses.output_items import output_items
from chat_gateway.http_edge.wire.errors import error_body
from chat_gateway.model.background import TurnState, TurnStatus
from chat_gateway.model.turn import FinishReason, TurnOutcome
from chat_gateway.model.usage import Usage
from contract.reasons import Reason
from servicekit.errors import ServiceError

COMPLETED: Final = "completed"
INCOMPLETE: Final = "incomplete"
IN_PROGRESS: Final = "in_progress"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
CUT: Final = {FinishReason.LENGTH: "max_output_tokens", FinishReason.CONTENT_FILTER: "content_filter"}
"""Why an answer is incomplete, by how it ended."""
_STATUSES: Final = {
    TurnStatus.QUEUED: "queued",
    TurnStatus.RUNNING: IN_PROGRESS,
    TurnStatus.FINISHED: COMPLETED,
    TurnStatus.REQUIRES_APPROVAL: COMPLETED,
    TurnStatus.FAILED: FAILED,
    TurnStatus.CANCELLED: CANCELLED,
}
_SERVICE_TIERS: Final = frozenset({"auto", "default", "flex", "scale", "priority", "fast", "ultrafast"})
_RATE_LIMITED: Final = frozenset({Reason.RATE_LIMITED, Reason.PROVIDER_RATE_LIMITED, Reason.TURN_QUEUE_FULL})


def encode_response(response: Response) -> bytes:
    """Returns the response's JSON."""
    return msgspec.json.encode(response)


class ResponseMaker:
    """Makes the response of one turn, at its different times."""

    def __init__(self, turn: TurnRef, echo: RequestEcho, begin_time: datetime) -> None:
        self._turn = turn
        self._echo = echo
        self._created = int(begin_time.timestamp())

    def running(self, status: str = IN_PROGRESS) -> Response:
        """Returns the response of a turn that runs."""
        return self._response(status, [])

    def failed(self, error: ServiceError, output: list[Item] | None = None, status: str = FAILED) -> Response:
        """Returns the response of a turn that failed, with what it had said until then."""
        said = error_body(error).error
        code = "rate_limit_exceeded" if error.reason in _RATE_LIMITED else "server_error"
        return self._response(status, output or [], error=ResponseError(code, said.message, said.code, said.param))

    def ended(self, outcome: TurnOutcome, output: list[Item]) -> Response:
        """Returns the response of a turn that is stored."""
        cut = CUT.get(outcome.finish_reason)
        end = outcome.end_time or datetime.now(UTC)
        return self._response(
            COMPLETED if cut is None else INCOMPLETE,
            output,
            completed_at=math.floor(end.timestamp()) if cut is None else None,
            incomplete_details=None if cut is None else IncompleteDetails(cut),
            usage=usage_of(outcome.usage),
            service_tier=outcome.details.service_tier,
        )

    def _response(
        self,
        status: str,
        output: list[Item],
        *,
        error: ResponseError | None = None,
        completed_at: int | None = None,
        incomplete_details: IncompleteDetails | None = None,
        usage: ResponseUsage | None = None,
        service_tier: str = "",
    ) -> Response:
        echo, session_id = self._echo, self._turn.session_id
        tier = service_tier or echo.service_tier or "default"
        return Response(
            id=self._turn.response_id,
            created_at=self._created,
            completed_at=completed_at,
            status=status,
            background=echo.background,
            error=error,
            incomplete_details=incomplete_details,
            instructions=echo.instructions,
            max_output_tokens=echo.max_output_tokens,
            model=echo.model,
            output=output,
            parallel_tool_calls=echo.parallel_tool_calls,
            previous_response_id=echo.previous_response_id,
            conversation=ConversationOf(session_id) if session_id else None,
            prompt_cache_key=echo.prompt_cache_key,
            prompt_cache_retention=echo.prompt_cache_retention,
            reasoning=echo.reasoning or {"effort": None, "summary": None},
            safety_identifier=echo.safety_identifier,
            service_tier=tier if tier in _SERVICE_TIERS else "default",
            store=bool(session_id),
            temperature=_number(echo.temperature, 1.0),
            top_p=_number(echo.top_p, 1.0),
            presence_penalty=_number(echo.presence_penalty, 0.0),
            frequency_penalty=_number(echo.frequency_penalty, 0.0),
            top_logprobs=echo.top_logprobs or 0,
            text=echo.text or {"format": {"type": "text"}, "verbosity": "medium"},
            tool_choice=echo.tool_choice,
            tools=echo.tools,
            truncation=echo.truncation,
            usage=usage,
            user=echo.user,
            metadata=echo.metadata,
        )


def state_response(state: TurnState, echo: RequestEcho) -> Response:
    """Returns the response of a turn, as far as it is."""
    if state.outcome is not None:
        return whole_response(state.outcome, echo)
    begin_time = state.begin_time or datetime.fromtimestamp(0, UTC)
    make = ResponseMaker(TurnRef(state.turn_id, state.session_id), echo, begin_time)
    if state.error is not None and state.status is not TurnStatus.CANCELLED:
        return make.failed(state.error)
    return make.running(_STATUSES[state.status])


def whole_response(outcome: TurnOutcome, echo: RequestEcho) -> Response:
    """Returns the response of a turn that is stored, or was stateless."""
    turn = TurnRef(outcome.turn_id, outcome.session_id)
    return ResponseMaker(turn, echo, outcome.begin_time).ended(outcome, items_of(outcome, turn, echo))


def items_of(outcome: TurnOutcome, turn: TurnRef, echo: RequestEcho) -> list[Item]:
    """Returns the items of a turn that is stored, or was stateless."""
    items = output_items(
        turn,
        outcome.said or (outcome.message,),
        outcome.runs,
        {one.call_id for one in outcome.pending},
        cut=outcome.finish_reason in CUT,
        keep=ENCRYPTED_REASONING in echo.include,
        annotations=outcome.details.annotations,
        listed=outcome.listed,
    )
    if LOGPROBS in echo.include and outcome.details.logprobs:
        _add_logprobs(items, outcome.details.logprobs)
    return items


def _add_logprobs(items: list[Item], logprobs: bytes) -> None:
    """Those of the answer's last text: a provider says them of each call of it, and only those of the last are kept."""
    texts = [part for item in items if item["type"] == "message" for part in item["content"]]
    if texts and texts[-1]["type"] == "output_text":
        texts[-1]["logprobs"] = logprobs_of(logprobs)


def _number(said: float | None, default: float) -> float:
    return default if said is None else said


def usage_of(usage: Usage) -> ResponseUsage:
    """Returns the tokens of a turn as responses have them."""
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(usage.cached_tokens, usage.cache_write_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(usage.reasoning_tokens),
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )
