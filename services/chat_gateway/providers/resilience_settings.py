"""What the environment says of a provider's bad moments."""

from pydantic import BaseModel, Field

from chat_gateway.providers.breaker import BreakerBounds
from chat_gateway.providers.resilient import ResilienceBounds


class ResilienceSettings(BaseModel):
    """The part of a provider's settings that says how it is spared, and what it is granted; times are in seconds."""

    api_key_files: tuple[str, ...] = Field(
        default=(),
        description="Files with the provider's keys, one a line, in place of `api_key_env`; used in turn, read again "
        "when they change. A key that is refused (401, 403, 429) is set aside for a while.",
    )
    connect_timeout: float | None = Field(
        default=None, gt=0, le=60, description="Seconds that connecting may take; unset: the gateway's."
    )
    first_token_timeout: float | None = Field(
        default=None,
        gt=0,
        le=3600,
        description="Seconds until a streamed answer begins, at most; unset: the gateway's.",
    )
    between_tokens_timeout: float | None = Field(
        default=None, gt=0, le=3600, description="Seconds of silence in a streamed answer; unset: the gateway's."
    )
    answer_timeout: float | None = Field(
        default=None,
        gt=0,
        le=3600,
        description="Seconds for an answer that is not streamed; unset: the gateway's.",
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
        description="Failures within 30 s after which, where they are half of the calls, the provider is left alone "
        "for a while; one call then tries whether it is back. 0: never.",
    )
    breaker_open: float = Field(default=10.0, gt=0, le=600, description="Seconds for which it is left alone.")

    @property
    def own_bounds(self) -> dict[str, float]:
        """The fields of `ProviderBounds` that the provider has values of its own for."""
        own = {
            "connect": self.connect_timeout,
            "first_token": self.first_token_timeout,
            "between_tokens": self.between_tokens_timeout,
            "answer": self.answer_timeout,
        }
        return {name: bound for name, bound in own.items() if bound is not None}

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
