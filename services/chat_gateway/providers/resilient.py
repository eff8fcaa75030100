"""A resilient provider: key rotation, retries before the first token, a circuit breaker, a limit on calls."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog

from chat_gateway.model.errors import TurnQueueFull
from chat_gateway.model.provider_errors import ProviderUnavailable
from chat_gateway.model.turn import NO_DETAILS, AnswerDetails, OnDelta
from chat_gateway.providers.breaker import BreakerBounds, CircuitBreaker, CircuitState
from chat_gateway.providers.failures import Failure, asked_wait, failure_of, is_of_key, is_worth_a_retry, status_of
from chat_gateway.providers.keys import Key, Keys
from chat_gateway.providers.provider import EmbeddingAnswer, EmbeddingCall, ModelAnswer, ModelCall, Provider
from chat_gateway.providers.relay import Relay
from servicekit.errors import ServiceError

log = structlog.get_logger(__name__)

_KEY_ASIDE_SECONDS = 60.0
"""How long a key is set aside that the provider refuses without saying for how long."""
_MAX_KEY_ASIDE_SECONDS = 600.0

T = TypeVar("T")
_Ask = Callable[[Provider], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class ResilienceBounds:
    """What a provider is spared and granted; times are in seconds."""

    max_retries: int = 2
    """Tries after the first, of one call, with the same key."""
    first_backoff: float = 0.25
    """The longest pause before the first retry; twice as long before each further one."""
    max_backoff: float = 5.0
    """The longest pause; a provider that asks for more is not tried again by this call."""
    max_concurrent_calls: int = 0
    """Calls at a time; 0: no limit of its own."""
    max_wait: float = 10.0
    """How long a call waits for one of them to end."""
    breaker: BreakerBounds = field(default_factory=BreakerBounds)


class ResilientProvider:
    """Implements `Provider` with an adapter a key. Once a piece of an answer was passed on, nothing is retried."""

    def __init__(
        self,
        name: str,
        keys: Keys,
        bounds: ResilienceBounds,
        *,
        jitter: Callable[[], float] = random.random,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self.name = name
        self.keys = keys
        self._details = AnswerDetails(provider=name)
        self.retries = 0
        """Retries since the start."""
        self.running = 0
        """Calls under way."""
        self._bounds = bounds
        self._jitter = jitter
        self._breaker = breaker or CircuitBreaker(bounds.breaker)
        limit = bounds.max_concurrent_calls
        self._places = asyncio.Semaphore(limit) if limit else None

    @property
    def circuit(self) -> CircuitState:
        """Whether calls go through."""
        return self._breaker.state

    @property
    def health(self) -> str:
        """Returns `ok`, or what is wrong with the provider."""
        problems = []
        if not self._breaker.closed:
            problems.append(f"circuit {self.circuit.name.lower().replace('_', '-')}")
        if aside := self.keys.aside:
            problems.append(f"{aside} of {len(self.keys)} keys set aside")
        return ", ".join(problems) or "ok"

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        relay = None if on_delta is None else Relay(on_delta)
        answer = await self._placed(lambda provider: provider.complete(call, relay), relay)
        if answer.details is not NO_DETAILS:
            return replace(answer, details=replace(answer.details, provider=self.name))
        return ModelAnswer(answer.message, answer.finish_reason, answer.usage, answer.model, self._details)

    async def embed(self, call: EmbeddingCall) -> EmbeddingAnswer:
        return await self._placed(lambda provider: provider.embed(call), None)

    def _placed(self, ask: _Ask[T], relay: Relay | None) -> Awaitable[T]:
        return self._tried(ask, relay) if self._places is None else self._in_place(self._places, ask, relay)

    async def _in_place(self, places: asyncio.Semaphore, ask: _Ask[T], relay: Relay | None) -> T:
        try:
            async with asyncio.timeout(self._bounds.max_wait):
                await places.acquire()
        except TimeoutError:
            limit = self._bounds.max_concurrent_calls
            raise TurnQueueFull(f"provider {self.name!r}", limit, retry_after=1.0) from None
        try:
            return await self._tried(ask, relay)
        finally:
            places.release()

    async def _tried(self, ask: _Ask[T], relay: Relay | None) -> T:
        retries, refused = 0, 0
        while True:
            key = self.keys.pick()
            try:
                return await self._try(key, ask)
            except ServiceError as error:
                if relay is not None and relay.passed:
                    raise
                if self._set_aside(key, error) and refused < len(self.keys):
                    refused += 1
                    continue
                pause = self._pause(error, retries)
                if pause is None:
                    raise
            retries += 1
            self.retries += 1
            log.info("provider_retry", provider=self.name, retry=retries, pause=round(pause, 3))
            await asyncio.sleep(pause)

    async def _try(self, key: Key, ask: _Ask[T]) -> T:
        breaker = self._breaker
        if not breaker.closed and (wait := breaker.wait()):
            raise ProviderUnavailable(self.name, "failed too often and is not called for now", retry_after=wait)
        probe = breaker.begin()
        self.running += 1
        try:
            answer = await ask(key.provider)
        except ServiceError as error:
            if failure_of(error) is Failure.DOWN:
                breaker.fail(probe)
                self._log_opened(probe)
            else:
                breaker.succeed(probe)
            raise
        except BaseException:
            breaker.abandon(probe)
            raise
        finally:
            self.running -= 1
        breaker.succeed(probe)
        return answer

    def _log_opened(self, probe: bool) -> None:
        if not self._breaker.closed and not probe:
            log.warning("provider_circuit_open", provider=self.name)

    def _set_aside(self, key: Key, error: ServiceError) -> bool:
        """Sets a key aside that was refused, where there are others; returns whether one of them can be tried now."""
        if len(self.keys) < 2 or not is_of_key(error):
            return False
        seconds = min(error.retry_after or 0.0, _MAX_KEY_ASIDE_SECONDS) or _KEY_ASIDE_SECONDS
        if status_of(error) != 429:
            seconds = _KEY_ASIDE_SECONDS
        log.warning("provider_key_set_aside", provider=self.name, status=status_of(error), seconds=seconds)
        return self.keys.set_aside(key, seconds)

    def _pause(self, error: ServiceError, retries: int) -> float | None:
        """Returns for how long to wait before the next try; None where there is none."""
        bounds = self._bounds
        if retries >= bounds.max_retries or not is_worth_a_retry(error) or not self._breaker.closed:
            return None
        asked = asked_wait(error)
        if asked > bounds.max_backoff:
            return None
        # Full jitter, so that those who failed together do not come back together; never sooner than asked for.
        backoff: float = min(bounds.first_backoff * 2.0**retries, bounds.max_backoff)
        return min(asked + self._jitter() * backoff, bounds.max_backoff)
