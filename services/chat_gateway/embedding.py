"""Embeddings by the model of an agent or a provider."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Final

from access.caller import current
from chat_gateway.admission import Admission, new_turn_id
from chat_gateway.limits import turn_limits
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.errors import ProviderUnknown
from chat_gateway.model.not_found import ModelNotFound
from chat_gateway.model.turn import LimitState, TurnRequest, Usage
from chat_gateway.ports import Configs
from chat_gateway.providers.provider import EmbeddingCall, Providers, VectorFormat
from chat_gateway.scheduler import Scheduler
from chat_gateway.turn_stop import TurnStop
from servicekit.values import value

MAX_AT_ONCE: Final = 16
"""Concurrent calls of one process, each of which may hold `MAX_EMBEDDINGS_BYTES`; further ones wait."""
MODEL_RULE: Final = "must be the id of an agent, or provider/model with a provider and a model of this installation"


@value
class EmbeddingRequest:
    """The inputs, and whose model embeds them: that of `agent_id`, or the provider's if empty."""

    project: str
    inputs: Sequence[str | Sequence[int]]
    agent_id: str = ""
    agent_revision: int = 0
    provider: str = ""
    model: str = ""
    encoding: VectorFormat = VectorFormat.FLOAT
    dimensions: int | None = None
    user: str = ""
    extra: Mapping[str, bytes] = field(default_factory=dict)


@value
class EmbeddingOutcome:
    """The vectors in the order of the inputs, each as JSON; `agent_revision` is 0 where no agent was named."""

    vectors: tuple[bytes, ...]
    usage: Usage
    provider: str
    agent_revision: int
    limits: tuple[LimitState, ...] = ()


class Embeddings:
    """Gets vectors from providers, under the same limits and bounds as turns; nothing is stored. Fallbacks of an agent
    are not used, because vectors of different models are not comparable.
    """

    def __init__(
        self,
        *,
        configs: Configs,
        providers: Providers,
        models: Mapping[str, Sequence[str]],
        scheduler: Scheduler,
        admission: Admission,
        timeout: float,
    ) -> None:
        """`models` lists the allowed models of each provider; none: any. `timeout` is in seconds."""
        self._configs = configs
        self._providers = providers
        self._models = models
        self._scheduler = scheduler
        self._admission = admission
        self._timeout = timeout
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    async def run(self, request: EmbeddingRequest) -> EmbeddingOutcome:
        """Returns the vectors. Raises `ServiceError`; cancelling the task cancels the provider's call."""
        config = await self._config(request) if request.agent_id else None
        provider, model = (request.provider, request.model) if config is None else (config.provider, config.model)
        if config is None and not self._is_known(provider, model):
            raise ModelNotFound(f"{provider}/{model}", MODEL_RULE)
        call = EmbeddingCall(
            model, request.inputs, request.encoding, request.dimensions, request.user, extra=request.extra
        )
        counted = TurnRequest(agent_id=request.agent_id, messages=(), project=request.project, stateless=True)
        own = config.turn_timeout if config is not None else None
        with self._scheduler.entered(config) as entered:
            async with (
                TurnStop(own or self._timeout) as stop,
                self._admission.limited(counted, new_turn_id(), turn_limits(current(), config), stop) as begun,
                self._scheduler.slot(entered),
                self._places,
            ):
                answer = await self._providers.get(provider).embed(call)
        revision = config.revision if config is not None else 0
        return EmbeddingOutcome(answer.vectors, answer.usage, answer.provider, revision, begun.limits)

    async def _config(self, request: EmbeddingRequest) -> AgentConfig:
        config = await self._configs.current(request.project, request.agent_id)
        if not request.agent_revision:
            return config
        chosen = await self._configs.at_revision(config, request.agent_revision)
        # As for turns, the current limits apply.
        return replace(
            chosen, max_concurrent_turns=config.max_concurrent_turns, requests_per_minute=config.requests_per_minute
        )

    def _is_known(self, provider: str, model: str) -> bool:
        try:
            self._providers.get(provider)
        except ProviderUnknown:
            return False
        allowed = self._models.get(provider)
        return not allowed or model in allowed
