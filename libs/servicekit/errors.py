"""The errors that cross a service's border, as plain Python.

A `ServiceError` is raised where the fault is found and mapped to the wire once (`servicekit.interceptors` for gRPC, the
HTTP edge for HTTP). Standard library only: every domain `model` may import this module.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DOMAIN = "parley"
"""`google.rpc.ErrorInfo.domain` of every error that Parley makes (AIP-193)."""


class Code(enum.Enum):
    """The canonical codes of `google/rpc/code.proto` with their numbers, OK left out."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


UNREACHABLE = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED})
"""Codes that say that a peer did not answer: whether it did what it was asked is not known; it may be asked again."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken field rule: the field's path as the caller wrote it, and what it must be instead."""

    field: str
    description: str
    count: int = 1
    """The number of violations that this represents: more than one if it counts those that are not listed."""


MAX_VIOLATIONS = 100
"""How many broken rules an error lists; one more says how many others there are."""

_MAX_FIELD = 256
_MAX_DESCRIPTION = 512
_MAX_MESSAGE = 4096
"""Characters: a violation may repeat what the caller sent, and every byte of an answer is one that somebody holds."""


class StartupError(Exception):
    """The process can't start; the message names what is wrong and is shown as one line."""


class ServiceError(Exception):
    """An error that a caller may see: its message, metadata and violations leave the process as they are.

    Subclasses set `code` and `reason` (a name of the `Reason` enum) and build their message. `retry_after` is in
    seconds and given only when a retry helps. `quota_subject` names the limit that was hit.
    """

    code: Code = Code.INTERNAL
    reason: str = "INTERNAL"
    domain: str = DOMAIN
    """Whose reason it is: ours, or that of a protocol that names its own."""

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        quota_subject: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations: tuple[Violation, ...] = _bounded(violations)
        self.retry_after = retry_after
        self.quota_subject = quota_subject


class InvalidArgument(ServiceError):
    """Fields break their rules; up to `MAX_VIOLATIONS` are listed, and in the message as far as they fit."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_FIELD"

    def __init__(self, violations: Sequence[Violation] = (), *, message: str | None = None) -> None:
        kept = _bounded(violations)
        listed = "; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in kept)
        super().__init__(message or _cut(listed, _MAX_MESSAGE) or "the request is not valid", violations=kept)


class MessageTooLarge(ServiceError):
    """A message is larger than the receiver takes. `limit` is in bytes, where it is known."""

    code = Code.INVALID_ARGUMENT
    reason = "MESSAGE_TOO_LARGE"

    def __init__(self, message: str = "the message is larger than allowed", *, limit: int | None = None) -> None:
        super().__init__(message, metadata={} if limit is None else {"limit_bytes": str(limit)})


class Internal(ServiceError):
    """A fault of this service. The message must not carry anything from inside it."""

    code = Code.INTERNAL
    reason = "INTERNAL"

    def __init__(self, message: str = "internal error") -> None:
        super().__init__(message)


class Unavailable(ServiceError):
    """A service or store that the call needs is unavailable; nothing was done that a retry could harm.

    `why` is for operators, one line without secrets: callers do not get it.
    """

    code = Code.UNAVAILABLE
    reason = "PEER_UNAVAILABLE"

    def __init__(self, peer: str, *, retry_after: float | None = None, why: str = "") -> None:
        super().__init__(f"{peer} is unavailable", metadata={"peer": peer}, retry_after=retry_after)
        self.why = why


class Draining(ServiceError):
    """This process is about to stop and takes no new work; another replica may take it at once."""

    code = Code.UNAVAILABLE
    reason = "DRAINING"

    def __init__(self) -> None:
        super().__init__("the server is about to stop")


class DeadlineExceeded(ServiceError):
    """The caller's deadline, or the named bound of this service, ran out."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"

    def __init__(self, message: str = "the deadline ran out", *, bound: str = "deadline") -> None:
        super().__init__(message, metadata={"bound": bound})


class Cancelled(ServiceError):
    """The caller has disconnected; this is not delivered."""

    code = Code.CANCELLED
    reason = "CANCELLED"

    def __init__(self, message: str = "the call was cancelled") -> None:
        super().__init__(message)


class UnknownMethod(ServiceError):
    """A call names no method that this server knows: its caller is of another release."""

    code = Code.UNIMPLEMENTED
    reason = "NOT_IMPLEMENTED"

    def __init__(self, server: str = "this server") -> None:
        super().__init__(f"{server} does not know the method that is called")


class RemoteError(ServiceError):
    """An error that a peer sent, carried on unchanged: code, reason, metadata, violations, retry delay."""

    def __init__(
        self,
        message: str,
        *,
        code: Code,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        quota_subject: str | None = None,
    ) -> None:
        super().__init__(
            message,
            metadata=metadata,
            violations=violations,
            retry_after=retry_after,
            quota_subject=quota_subject,
        )
        self.code = code
        self.reason = reason


class Violations:
    """Collects the broken rules of one request, so that the caller learns all of them at once."""

    def __init__(self) -> None:
        self._found: list[Violation] = []
        self._more = 0

    def add(self, field: str, description: str) -> None:
        """Notes one broken rule; those beyond `MAX_VIOLATIONS` are counted."""
        if len(self._found) < MAX_VIOLATIONS:
            self._found.append(Violation(field, description))
        else:
            self._more += 1

    def __bool__(self) -> bool:
        return bool(self._found)

    def fields(self) -> set[str]:
        """Returns the fields of the broken rules that are listed."""
        return {violation.field for violation in self._found}

    def check(self) -> None:
        """Raises `InvalidArgument` with every violation noted so far, if there is any."""
        if self._found:
            raise InvalidArgument([*self._found, _others(self._more)] if self._more else self._found)


def _bounded(violations: Sequence[Violation]) -> tuple[Violation, ...]:
    kept = [_short(violation) for violation in violations[:MAX_VIOLATIONS]]
    left_out = sum(violation.count for violation in violations[MAX_VIOLATIONS:])
    return (*kept, _others(left_out)) if left_out else tuple(kept)


def _others(count: int) -> Violation:
    return Violation("", f"and {count} more", count)


def _short(violation: Violation) -> Violation:
    if len(violation.field) <= _MAX_FIELD and len(violation.description) <= _MAX_DESCRIPTION:
        return violation
    return Violation(
        _cut(violation.field, _MAX_FIELD), _cut(violation.description, _MAX_DESCRIPTION), count=violation.count
    )


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
