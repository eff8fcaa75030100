"""Classifies failed calls of a provider: retry, use a fallback, or neither."""

import enum

from contract.enums import FallbackTrigger
from contract.reasons import Reason
from servicekit.errors import ServiceError

_DOWN_REASONS = frozenset({Reason.PROVIDER_UNAVAILABLE, Reason.PROVIDER_TIMEOUT, Reason.PROVIDER_BAD_RESPONSE})
_CONTENT_FILTER_CODES = frozenset({"content_filter", "content_policy_violation"})
_CONTEXT_LENGTH_CODES = frozenset({"context_length_exceeded", "string_above_max_length"})
_KEY_STATUSES = frozenset({401, 403, 429})
_RETRYABLE_BOUNDS = frozenset({"connect"})


class Failure(enum.Enum):
    """Why a provider did not answer."""

    DOWN = "down"
    """It can't be reached, answered 408 or 5xx, broke off, took too long, or answered what is none."""
    RATE_LIMITED = "rate_limited"
    """It, or the gateway for it, takes no more calls for now."""
    MISCONFIGURED = "misconfigured"
    """It knows neither the key, nor the model, nor the path: the operator's fault."""
    CONTENT_FILTER = "content_filter"
    CONTEXT_LENGTH = "context_length"
    REJECTED = "rejected"
    """It refused the request, as others would."""


TRIGGERS = {
    Failure.CONTENT_FILTER: FallbackTrigger.CONTENT_FILTER,
    Failure.CONTEXT_LENGTH: FallbackTrigger.CONTEXT_LENGTH,
}
"""The failures for which only a fallback is tried that names them."""


def failure_of(error: ServiceError) -> Failure:
    """Returns what kind of failure it is."""
    status = status_of(error)
    if status == 429 or error.reason in (Reason.TURN_QUEUE_FULL, Reason.PROVIDER_RATE_LIMITED):
        return Failure.RATE_LIMITED
    code = error.metadata.get("code", "")
    if code in _CONTENT_FILTER_CODES:
        return Failure.CONTENT_FILTER
    if code in _CONTEXT_LENGTH_CODES:
        return Failure.CONTEXT_LENGTH
    if error.reason == Reason.PROVIDER_MISCONFIGURED:
        return Failure.MISCONFIGURED
    return Failure.DOWN if error.reason in _DOWN_REASONS else Failure.REJECTED


def status_of(error: ServiceError) -> int:
    """Returns the HTTP status that the provider answered with, 0 where it did not."""
    status = error.metadata.get("status", "")
    return int(status) if status.isdecimal() else 0


def is_of_key(error: ServiceError) -> bool:
    """Returns whether another key of the provider may fare better."""
    return status_of(error) in _KEY_STATUSES


def is_worth_a_retry(error: ServiceError) -> bool:
    """Returns whether the same call may well succeed in a moment.

    One that took until its time was over is not repeated: its caller has waited long enough.
    """
    if error.reason == Reason.PROVIDER_TIMEOUT:
        return error.metadata.get("bound") in _RETRYABLE_BOUNDS
    return error.reason in (Reason.PROVIDER_UNAVAILABLE, Reason.PROVIDER_RATE_LIMITED)


def asked_wait(error: ServiceError) -> float:
    """Returns the seconds to wait before the provider is called again; 0 if it did not say."""
    wait = error.retry_after or 0.0
    # A second is what callers are asked for where the provider asks for nothing.
    return wait if wait > 1.0 or error.reason == Reason.PROVIDER_RATE_LIMITED else 0.0
