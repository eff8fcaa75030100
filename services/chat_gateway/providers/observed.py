"""A provider under observation: the span and the metrics of each model call, by OpenTelemetry's GenAI conventions."""

import json
import time
from collections.abc import Awaitable, Sequence
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from chat_gateway.model.turn import Delta, Message, OnDelta, Sampling, Usage
from chat_gateway.providers.provider import EmbeddingAnswer, EmbeddingCall, ModelAnswer, ModelCall, Provider
from servicekit import traces
from servicekit.errors import ServiceError

MAX_MODELS = 100
"""Models that have a label of their own; agents name what they like, so later ones are counted as `other`."""

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_OK = ""
CHAT: Final = "chat"
EMBEDDINGS: Final = "embeddings"
"""The names of operations."""


class ModelMetrics:
    """`gen_ai.client.operation.duration` in seconds and `gen_ai.client.token.usage`, by provider and model."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        labels = ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"]
        self._seconds = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "Model calls, streams until their end.",
            [*labels, "error_type"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of one model call, as the provider counted them.",
            [*labels, "gen_ai_token_type"],
            buckets=_TOKENS,
            registry=registry,
        )
        self._first = Histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Streamed model calls, until the first piece of the answer.",
            labels[1:],
            buckets=_SECONDS,
            registry=registry,
        )
        self._fallbacks = Counter(
            "parley_provider_fallbacks",
            "Calls that another provider was asked to answer, by who failed, who was asked, and why.",
            ["provider", "fallback", "failure"],
            registry=registry,
        )
        self._models: set[tuple[str, str]] = set()
        self._calls: dict[tuple[str, str, str, str], Histogram] = {}
        self._usage: dict[tuple[str, str, str, str], Histogram] = {}

    def observe(
        self, provider: str, model: str, seconds: float, error: str, usage: Usage | None, operation: str = CHAT
    ) -> None:
        """Records one call; `error` is the reason that it failed for, empty for none."""
        model = self._label(provider, model)
        _child(self._calls, self._seconds, (operation, provider, model, error)).observe(seconds)
        if usage is not None:
            _child(self._usage, self._tokens, (operation, provider, model, "input")).observe(usage.prompt_tokens)
            if operation == CHAT:
                _child(self._usage, self._tokens, (operation, provider, model, "output")).observe(
                    usage.completion_tokens
                )

    def observe_first(self, provider: str, model: str, seconds: float) -> None:
        """Records how long the first piece of a streamed answer took."""
        self._first.labels(provider, self._label(provider, model)).observe(seconds)

    def fell_back(self, provider: str, fallback: str, failure: str) -> None:
        """Records that one provider is asked for what another one failed to answer."""
        self._fallbacks.labels(provider, fallback, failure).inc()

    def _label(self, provider: str, model: str) -> str:
        known = (provider, model)
        if known not in self._models:
            if len(self._models) >= MAX_MODELS:
                return "other"
            self._models.add(known)
        return model


def _child(
    children: dict[tuple[str, str, str, str], Histogram], parent: Histogram, labels: tuple[str, str, str, str]
) -> Histogram:
    child = children.get(labels)
    if child is None:
        child = children[labels] = parent.labels(*labels)
    return child


class ObservedProvider:
    """Implements `Provider` with another one, and records each call.

    Prompts and answers are attributes of the span only with `content`, which the operator must set.
    """

    def __init__(self, provider: Provider, metrics: ModelMetrics, *, content: bool = False) -> None:
        self.name = provider.name
        self._provider = provider
        self._metrics = metrics
        self._content = content

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        start = time.perf_counter()
        error, usage = "cancelled", None
        if on_delta is not None:
            on_delta = self._timed(call, on_delta, start)
        try:
            answer = (
                await self._traced(call, on_delta) if traces.on() else await self._provider.complete(call, on_delta)
            )
            error, usage = _OK, answer.usage
            return answer
        except ServiceError as failure:
            error = failure.reason.lower()
            raise
        finally:
            self._metrics.observe(self.name, call.model, time.perf_counter() - start, error, usage)

    def _timed(self, call: ModelCall, on_delta: OnDelta, start: float) -> OnDelta:
        """Passes the pieces on, and records when the first one came."""
        waiting = True

        def timed(delta: Delta) -> Awaitable[None]:
            nonlocal waiting
            if waiting:
                waiting = False
                self._metrics.observe_first(self.name, call.model, time.perf_counter() - start)
            return on_delta(delta)

        return timed

    async def embed(self, call: EmbeddingCall) -> EmbeddingAnswer:
        start = time.perf_counter()
        error, usage = "cancelled", None
        try:
            with traces.span(f"{EMBEDDINGS} {call.model}", "client", _embedding(self.name, call)) as span:
                answer = await self._provider.embed(call)
                span.set("gen_ai.usage.input_tokens", answer.usage.prompt_tokens)
            error, usage = _OK, answer.usage
            return answer
        except ServiceError as failure:
            error = failure.reason.lower()
            raise
        finally:
            self._metrics.observe(self.name, call.model, time.perf_counter() - start, error, usage, EMBEDDINGS)

    async def _traced(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        with traces.span(f"chat {call.model}", "client", _asked(self.name, call)) as span:
            if self._content:
                span.set("gen_ai.input.messages", _as_json(call.messages))
                span.set("gen_ai.request.stop_sequences", list(call.sampling.stop))  # callers' own words, too
            answer = await self._provider.complete(call, on_delta)
            span.set("gen_ai.response.model", answer.model)
            span.set("gen_ai.response.finish_reasons", [answer.finish_reason.value])
            span.set("gen_ai.usage.input_tokens", answer.usage.prompt_tokens)
            span.set("gen_ai.usage.output_tokens", answer.usage.completion_tokens)
            if self._content:
                span.set("gen_ai.output.messages", _as_json([answer.message]))
            return answer


def _asked(provider: str, call: ModelCall) -> dict[str, traces.Attribute]:
    return {
        "gen_ai.operation.name": CHAT,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": call.model,
        **_sampling(call.sampling),
    }


def _embedding(provider: str, call: EmbeddingCall) -> dict[str, traces.Attribute]:
    asked: dict[str, traces.Attribute] = {
        "gen_ai.operation.name": EMBEDDINGS,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": call.model,
    }
    if call.dimensions is not None:
        asked["gen_ai.embeddings.dimension.count"] = call.dimensions
    return asked


def _sampling(sampling: Sampling) -> dict[str, traces.Attribute]:
    said: dict[str, traces.Attribute | None] = {
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.max_tokens": sampling.max_output_tokens,
        "gen_ai.request.seed": sampling.seed,
        "gen_ai.request.presence_penalty": sampling.presence_penalty,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
    }
    return {name: value for name, value in said.items() if value is not None}


def _as_json(messages: Sequence[Message]) -> str:
    return json.dumps(
        [
            {"role": message.role.value, "parts": [{"type": "text", "content": message.content or message.refusal}]}
            for message in messages
        ],
        ensure_ascii=False,
    )
