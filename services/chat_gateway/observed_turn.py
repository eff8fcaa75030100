"""One turn under observation: its time, its end, and its span where traces are on."""

import time
from types import TracebackType
from typing import Self

from chat_gateway.metrics import TurnMetrics
from chat_gateway.model.turn import TurnOutcome, TurnRequest
from servicekit import traces


class ObservedTurn:
    """Observes a turn while open, whatever ends it."""

    __slots__ = ("_begin", "_metrics", "_outcome", "_span", "_streamed")

    def __init__(self, metrics: TurnMetrics, request: TurnRequest, *, streamed: bool) -> None:
        self._metrics = metrics
        self._streamed = streamed
        self._outcome: TurnOutcome | None = None
        self._span = _span(request) if traces.on() else None

    def __enter__(self) -> Self:
        self._begin = time.perf_counter()
        if self._span is not None:
            self._span.__enter__()
        return self

    def ended(self, outcome: TurnOutcome) -> TurnOutcome:
        """Notes how it ended, and returns that."""
        self._outcome = outcome
        if self._span is not None:
            _record(self._span, outcome)
        return outcome

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
        self._metrics.ended(self._outcome, error, time.perf_counter() - self._begin, streamed=self._streamed)


def _span(request: TurnRequest) -> traces.Span:
    attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.id": request.agent_id,
        "parley.project": request.project,
    }
    return traces.span(f"invoke_agent {request.agent_id}", attributes=attributes)


def _record(span: traces.Span, outcome: TurnOutcome) -> None:
    span.set("parley.turn.id", outcome.turn_id)
    span.set("parley.agent.revision", outcome.agent_revision)
    span.set("parley.turn.replayed", outcome.replayed)
    if outcome.session_id:
        span.set("gen_ai.conversation.id", outcome.session_id)
        span.set("parley.turn.number", outcome.turn_number)
