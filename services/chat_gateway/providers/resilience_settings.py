"""Settings of a provider's timeouts, retries and circuit breaker."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, model_validator

from chat_gateway.providers.breaker import BreakerBounds
from chat_gateway.providers.resilient import ResilienceBounds
from servicekit.settings import Seconds


class ProviderTimeouts(BaseModel):
    """How long to wait for a provider: the gateway's settings, and those of each provider that says otherwise."""

    connect_timeout: Seconds = Field(
        default=5.0,
        gt=0,
        le=60,
        description="How long connecting to a provider may take. Where a provider has no bound of its own, here and for"
        " the next three, it has the gateway's.",
    )
    first_token_timeout: Seconds = Field(
        default=120.0, gt=0, le=3600, description="How long a streamed answer of a provider may take to begin."
    )
    between_tokens_timeout: Seconds = Field(
        default=60.0, gt=0, le=3600, description="How long a provider may be silent in a streamed answer."
    )
    answer_timeout: Seconds = Field(
        default=600.0, gt=0, le=3600, description="How long an answer of a provider that is not streamed may take."
    )

    def timeouts(self, *, own: bool = False) -> dict[str, float]:
        """Returns the timeouts as the fields of `ProviderBounds`; of its `own` only those that were set."""
        names = {name: f"{name}_timeout" for name in ("connect", "first_token", "between_tokens", "answer")}
        return {name: getattr(self, one) for name, one in names.items() if not own or one in self.model_fields_set}


_TIMEOUTS = frozenset(ProviderTimeouts.model_fields)


class ResilienceSettings(ProviderTimeouts):
    """The part of a provider's settings that says how it is spared, and what it is granted; times are in seconds.

    Timeouts that are unset, or null, are the gateway's.
    """

    api_key_files: tuple[str, ...] = Field(
        default=(),
        description="Files with the provider's keys, one a line, in place of `api_key_env`; used in turn, read again "
        "when they change. A key that is refused (401, 403, 429) is set aside for a while.",
    )
    max_retries: int = Field(
        default=2,
        ge=0,
        le=10,
        description="Tries after the first where the provider is unavailable (can't be reached, 408, 429, 5xx), with "
        "pauses that grow and vary; never once a piece of the answer was passed on.",
    )
    max_backoff: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="The longest pause before a retry, in seconds; after a longer `Retry-After` there is none.",
    )
    max_concurrent_calls: int = Field(
        default=0, ge=0, le=100_000, description="Calls at a time from this gateway; 0: no limit of its own."
    )
    max_wait: float = Field(
        default=10.0,
        ge=0,
        le=600,
        description="Seconds that a call waits for a place; `turn_queue_full` then.",
    )
    breaker_failures: int = Field(
        default=20,
        ge=0,
        le=100_000,
        description="Failures within 30 s after which, where they are half of the calls, the provider is not called "
        "for a while; one call then tries whether it is back. 0: never.",
    )
    breaker_open: float = Field(default=10.0, gt=0, le=600, description="Seconds for which it is not called.")

    @model_validator(mode="before")
    @classmethod
    def _null_is_unset(cls, said: Any) -> Any:
        if not isinstance(said, Mapping):
            return said
        return {name: value for name, value in said.items() if value is not None or name not in _TIMEOUTS}

    @property
    def resilience(self) -> ResilienceBounds:
        """The bounds that the settings name."""
        return ResilienceBounds(
            max_retries=self.max_retries,
            max_backoff=self.max_backoff,
            max_concurrent_calls=self.max_concurrent_calls,
            max_wait=self.max_wait,
            breaker=BreakerBounds(min_failures=self.breaker_failures, open_time=self.breaker_open),
        )
