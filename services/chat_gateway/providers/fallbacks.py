"""The models of one agent, tried one after another until one answers."""

from collections.abc import Sequence
from dataclasses import fields, replace

import structlog

from chat_gateway.model.agent_config import AgentConfig, Fallback
from chat_gateway.model.errors import ProviderUnknown
from chat_gateway.model.turn import Delta, FinishReason, OnDelta, Sampling
from chat_gateway.model.usage import Usage, added
from chat_gateway.providers.failures import TRIGGERS, Failure, failure_of
from chat_gateway.providers.observed import ModelMetrics
from chat_gateway.providers.provider import (
    EmbeddingAnswer,
    EmbeddingCall,
    ModelAnswer,
    ModelCall,
    Provider,
    Providers,
)
from chat_gateway.providers.relay import Relay
from servicekit.errors import ServiceError

log = structlog.get_logger(__name__)

_UNSAID = Sampling()


def provider_of(config: AgentConfig, providers: Providers, metrics: ModelMetrics | None = None) -> Provider:
    """Returns who answers for an agent: its provider, with its fallbacks behind it where it has any.

    Raises `ProviderUnknown`; a fallback that this gateway does not have is left out.
    """
    first = providers.get(config.provider)
    if not config.fallbacks:
        return first
    others = []
    for fallback in config.fallbacks:
        try:
            others.append((fallback, providers.get(fallback.provider)))
        except ProviderUnknown:
            log.warning("fallback_unknown", provider=fallback.provider, agent=config.id)
    return FallbackProvider(first, others, metrics, config.sampling)


class FallbackProvider:
    """Implements `Provider` with several. Once a piece of an answer was passed on, no other is called."""

    def __init__(
        self,
        first: Provider,
        others: Sequence[tuple[Fallback, Provider]],
        metrics: ModelMetrics | None = None,
        sampling: Sampling = _UNSAID,
    ) -> None:
        """`sampling` is the agent's own, in whose place that of a fallback is sent."""
        self.name = first.name
        self._first = first
        self._others = tuple(others)
        self._metrics = metrics
        self._sampling = sampling

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        tries = _Tries(on_delta)
        failure = await tries.ask(self._first, call)
        asked = self._first.name
        for fallback, provider in self._others:
            if failure is None:
                break
            trigger = TRIGGERS.get(failure)
            if failure is Failure.REJECTED or (trigger is not None and trigger not in fallback.also_on):
                continue
            log.info("provider_fallback", provider=asked, fallback=provider.name, failure=failure.value)
            if self._metrics is not None:
                self._metrics.fell_back(asked, provider.name, failure.value)
            own = self._sampled(call.sampling, fallback.sampling)
            failure, asked = await tries.ask(provider, replace(call, model=fallback.model, sampling=own)), provider.name
        return tries.result()

    def _sampled(self, asked: Sampling, own: Sampling) -> Sampling:
        if own == _UNSAID:
            return asked
        said = {part.name: getattr(own, part.name) for part in fields(Sampling)}
        return replace(
            asked,
            **{
                name: value
                for name, value in said.items()
                # What differs from the agent's own is the request's.
                if value not in (None, ()) and getattr(asked, name) == getattr(self._sampling, name)
            },
        )

    async def embed(self, call: EmbeddingCall) -> EmbeddingAnswer:
        """Asks the first alone: the vectors of another model can't be compared with its own."""
        return await self._first.embed(call)


class _Tries:
    """The tries of one call, and what came of them."""

    __slots__ = ("_answer", "_error", "_on_delta", "_usage")

    def __init__(self, on_delta: OnDelta | None) -> None:
        self._on_delta = on_delta
        self._usage = Usage()
        self._answer: ModelAnswer | None = None
        self._error: ServiceError | None = None

    async def ask(self, provider: Provider, call: ModelCall) -> Failure | None:
        """Asks one; returns why another is to be asked, None where none is. Raises what can't be made good."""
        again = self._error is not None or self._answer is not None
        relay = None if self._on_delta is None else _NamingRelay(self._on_delta, provider.name if again else "")
        try:
            answer = await provider.complete(call, relay)
        except ServiceError as error:
            if relay is not None and relay.passed:
                raise
            # What the agent's own model failed with says more than what its last resort did.
            self._error = self._error or error
            return failure_of(error)
        self._usage = added(self._usage, answer.usage)
        self._answer = answer
        withheld = answer.finish_reason is FinishReason.CONTENT_FILTER
        return Failure.CONTENT_FILTER if withheld and not (relay is not None and relay.passed) else None

    def result(self) -> ModelAnswer:
        """Returns the last answer, with the tokens of all. Raises the first error if all failed."""
        if self._answer is None:
            assert self._error is not None, "somebody was asked"
            raise self._error
        return replace(self._answer, usage=self._usage)


class _NamingRelay(Relay):
    """Names the provider with the first piece of the answer, where it is not the agent's own."""

    __slots__ = ("_provider",)

    def __init__(self, on_delta: OnDelta, provider: str) -> None:
        super().__init__(on_delta)
        self._provider = provider

    async def __call__(self, delta: Delta) -> None:
        if self._provider and not self.passed:
            delta = replace(delta, provider=self._provider)
        await super().__call__(delta)
