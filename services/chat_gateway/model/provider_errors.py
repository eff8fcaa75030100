"""Errors of providers, and of fields that can't be passed on to them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from contract.reasons import Reason
from servicekit.errors import MAX_VIOLATIONS, Code, ServiceError, Violation

_MAX_LISTED = 10
UNKNOWN_FIELD: Final = "is not a field that is understood here"


class ProviderUnavailable(ServiceError):
    """The provider can't be reached, or answered 408 or 5xx."""

    code = Code.UNAVAILABLE
    reason = Reason.PROVIDER_UNAVAILABLE

    def __init__(self, provider: str, why: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(
            f"provider {provider!r} {why}",
            metadata={"provider": provider, "status": str(status)},
            retry_after=retry_after,
        )


class ProviderTimeout(ServiceError):
    """The provider took longer than a bound: `connect`, `first_token`, `between_tokens`; `answer` when not streamed."""

    code = Code.DEADLINE_EXCEEDED
    reason = Reason.PROVIDER_TIMEOUT

    def __init__(self, provider: str, bound: str) -> None:
        super().__init__(
            f"provider {provider!r} took longer than the bound {bound!r}",
            metadata={"provider": provider, "bound": bound},
        )


class ProviderBadResponse(ServiceError):
    """The provider's response violates its protocol."""

    code = Code.INTERNAL
    reason = Reason.PROVIDER_BAD_RESPONSE

    def __init__(self, provider: str, why: str) -> None:
        super().__init__(f"provider {provider!r} gave a bad answer: {why}", metadata={"provider": provider})


class ProviderRejected(ServiceError):
    """The provider rejected the request (4xx, except those with an error of their own).

    `code`, `param` and `message` are the provider's own, as far as the caller may see them.
    """

    code = Code.FAILED_PRECONDITION
    reason = Reason.PROVIDER_REJECTED

    def __init__(self, provider: str, status: int, *, code: str = "", param: str = "", message: str = "") -> None:
        said = {"code": code, "param": param}
        super().__init__(
            f"provider {provider!r} refused the request with status {status}" + (f": {message}" if message else ""),
            metadata={
                "provider": provider,
                "status": str(status),
                **{name: text for name, text in said.items() if text},
            },
        )


class UnsupportedContent(ServiceError):
    """The provider does not accept parts of the request's messages; `found` lists their paths."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.UNSUPPORTED_FIELD

    def __init__(self, provider: str, found: Iterable[Violation]) -> None:
        violations = list(found)
        super().__init__(
            "; ".join(f"{one.field}: {one.description}" for one in violations[:_MAX_LISTED]),
            metadata={"provider": provider},
            violations=violations,
        )


class _RefusedFields(ServiceError):
    """Rejected fields of the request, by their names in chat completions."""

    code = Code.INVALID_ARGUMENT

    def __init__(self, violations: Sequence[Violation], metadata: Mapping[str, str]) -> None:
        message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        super().__init__(message, metadata=metadata, violations=violations)

    def renamed(self, name_of: Callable[[str], str]) -> "_RefusedFields":
        """Returns the error with the names of the fields in another protocol."""
        violations = [Violation(name_of(one.field), one.description) for one in self.violations]
        renamed = _RefusedFields(violations, self.metadata)
        renamed.reason = self.reason
        return renamed


class UnsupportedField(_RefusedFields):
    """Fields of the request are not supported by the provider or Parley, and would be ignored silently."""

    reason = Reason.UNSUPPORTED_FIELD

    def __init__(self, provider: str, fields: Iterable[str]) -> None:
        """`provider` is empty for fields that Parley would have to interpret."""
        rule = f"provider {provider!r} does not take it" if provider else UNKNOWN_FIELD
        violations = [Violation(field, rule) for field in islice(fields, MAX_VIOLATIONS)]
        super().__init__(violations, {"provider": provider} if provider else {})


class FieldsUnsupported(_RefusedFields):
    """Fields of the request, or their values, are part of the protocol but not supported here."""

    reason = Reason.UNSUPPORTED_FIELD

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(violations, {})


class FieldNotOverridable(_RefusedFields):
    """The request sets fields that the agent config does not let requests override.

    Fields have their names in chat completions.
    """

    reason = Reason.FIELD_NOT_OVERRIDABLE

    def __init__(self, agent_id: str, fields: Iterable[str]) -> None:
        violations = [Violation(field, f"agent {agent_id!r} does not let requests set it") for field in fields]
        super().__init__(violations, {"agent_id": agent_id})


class EmbeddingsUnsupported(ServiceError):
    """The provider's API has no embeddings."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.EMBEDDINGS_UNSUPPORTED

    def __init__(self, provider: str, kind: str) -> None:
        super().__init__(
            f"provider {provider!r} has no embeddings: its kind, {kind}, has no such API",
            metadata={"provider": provider},
        )


class ProviderRateLimited(ServiceError):
    """The provider limits the rate of requests (429). `retry_after` is the provider's, or None."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.PROVIDER_RATE_LIMITED

    def __init__(self, provider: str, *, retry_after: float | None) -> None:
        super().__init__(
            f"provider {provider!r} limits the rate of requests",
            metadata={"provider": provider, "status": "429"},
            retry_after=retry_after,
            quota_subject=f"provider:{provider}",
        )


class ProviderMisconfigured(ServiceError):
    """The provider refuses this gateway for any caller: its key, its URL or the model's name is wrong."""

    code = Code.INTERNAL
    reason = Reason.PROVIDER_MISCONFIGURED

    def __init__(self, provider: str, why: str, *, status: int) -> None:
        super().__init__(
            f"provider {provider!r} {why}: the operator has to look at its settings",
            metadata={"provider": provider, "status": str(status)},
        )
