"""The errors of calls, as exceptions: one class for each family of reasons (`parley.errors.v1.Reason`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from parley.errors.v1 import reason_pb2

DOMAIN: Final = "parley"
_DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of the request that breaks a rule."""

    field: str
    """Its path in the request, such as `messages[0].content`."""
    description: str
    """What is valid."""


class ParleyError(Exception):
    """A call failed. `str` is for people; programs compare `reason`, or catch one of the classes below."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_delay: float | None = None,
        quota_subject: str = "",
    ) -> None:
        super().__init__(f"{reason or code.name}: {message}")
        self.message = message
        """The server's message."""
        self.code = code
        """gRPC's canonical code."""
        self.reason = reason
        """A name of `parley.errors.v1.Reason` without its prefix; empty for a network failure."""
        self.metadata = dict(metadata or {})
        """The metadata that the reason documents."""
        self.violations = tuple(violations)
        """All invalid fields, not only the first."""
        self.retry_delay = retry_delay
        """Seconds after which a retry may succeed; None if the server gives no time."""
        self.quota_subject = quota_subject
        """Whose limit was reached, such as `agent:support`."""


class InvalidRequest(ParleyError):
    """The request breaks a rule: see `violations`."""


class NotFound(ParleyError):
    """The resource does not exist, or the caller may not see it."""


class AlreadyExists(ParleyError):
    """The id is in use."""


class Conflict(ParleyError):
    """A conflict with another change of the same object: a changed etag, a busy session, an interrupted turn."""


class PreconditionFailed(ParleyError):
    """The object's state does not allow it."""


class LimitExceeded(ParleyError):
    """A queue, a rate or a quota is at its limit: see `retry_delay` and `quota_subject`."""


class UpstreamError(ParleyError):
    """A model provider or a tool failed."""


class Unavailable(ParleyError):
    """A server or store is unreachable or about to stop. Whether the call had an effect is unknown."""


class DeadlineExceeded(Unavailable):
    """The deadline, or a timeout of the server, was exceeded. Whether the call had an effect is unknown."""


class AccessDenied(ParleyError):
    """The credentials are invalid, or do not allow the call."""


class InternalError(ParleyError):
    """A fault of the server, or an unknown method."""


FAMILIES: Final[Mapping[int, type[ParleyError]]] = {
    0: InvalidRequest,
    20: NotFound,
    40: AlreadyExists,
    60: Conflict,
    80: PreconditionFailed,
    100: LimitExceeded,
    120: UpstreamError,
    140: Unavailable,
    160: AccessDenied,
    180: InternalError,
}
"""The class of each block of twenty enum numbers, so new reasons get the class of their block."""

_BLOCK = 20

_BY_CODE: Final[Mapping[grpc.StatusCode, type[ParleyError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,  # how a stopping server ends calls
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
}


def class_of(reason: str, code: grpc.StatusCode) -> type[ParleyError]:
    """Returns the class for a reason; an unknown reason is classified by its code."""
    if reason == "DEADLINE_EXCEEDED":
        return DeadlineExceeded
    try:
        number = reason_pb2.Reason.Value(f"REASON_{reason}")
    except ValueError:
        return _BY_CODE.get(code, InternalError)
    return FAMILIES.get(number - number % _BLOCK, InternalError)


def error_of(failed: grpc.RpcError) -> ParleyError:
    """Returns the exception for a failed call of `grpc` or `grpc.aio`, with all details of its status."""
    call: Any = failed
    code, message = call.code(), call.details() or ""
    status = _status(call.trailing_metadata() or ())
    found = _details(status)
    info = found["ErrorInfo"]
    reason = info.reason if info.domain == DOMAIN else ""
    retry, quota = found["RetryInfo"], found["QuotaFailure"].violations
    return class_of(reason, code)(
        status.message or message,
        code=code,
        reason=reason,
        metadata=info.metadata,
        violations=[FieldViolation(one.field, one.description) for one in found["BadRequest"].field_violations],
        retry_delay=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
        quota_subject=quota[0].subject if quota else "",
    )


def _status(trailing: Iterable[tuple[str, Any]]) -> Any:
    for key, value in trailing:
        if key == _DETAILS:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _details(status: Any) -> dict[str, Any]:
    kinds = ("ErrorInfo", "RetryInfo", "QuotaFailure", "BadRequest")
    found: dict[str, Any] = {kind: getattr(error_details_pb2, kind)() for kind in kinds}
    for detail in status.details:
        into = found.get(detail.TypeName().rpartition(".")[2])
        try:
            if into is not None:
                detail.Unpack(into)
        except DecodeError:
            continue
    return found
