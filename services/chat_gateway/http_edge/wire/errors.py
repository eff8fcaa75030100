"""`ServiceError` to OpenAI's error body, by the HTTP mapping of google/rpc/code.proto."""

import math

import msgspec

from chat_gateway.http_edge.wire.limit_headers import Headers, refusal_headers
from contract.reasons import Reason
from servicekit.errors import Code, ServiceError, Violation

STATUS: dict[Code, int] = {
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""The HTTP status of each canonical code (google/rpc/code.proto)."""

_STATUS_BY_REASON: dict[str, int] = {Reason.PROVIDER_MISCONFIGURED: 502, Reason.MESSAGE_TOO_LARGE: 413}
"""What no canonical code maps to."""

RETRY_HELPS = frozenset(
    {
        Reason.SESSION_BUSY,
        Reason.LEASE_LOST,
        Reason.TURN_QUEUE_FULL,
        Reason.RATE_LIMITED,
        Reason.TOO_MANY_CALLS,
        Reason.TOO_MANY_WATCHES,
        Reason.PEER_UNAVAILABLE,
        Reason.DRAINING,
        Reason.PROVIDER_UNAVAILABLE,
        Reason.PROVIDER_TIMEOUT,
        Reason.PROVIDER_RATE_LIMITED,
        Reason.TOOL_SERVER_UNAVAILABLE,
    }
)
"""Reasons after which nothing was stored and the same request may well succeed. The official OpenAI clients repeat
every 408, 409, 429 and 5xx by themselves unless `x-should-retry` says otherwise, so all others say `false`. A bad
response of a provider is one of those: it was paid for, and nothing says that the next one would be better."""

_RETRIED_BY_CLIENTS = frozenset({408, 409, 429})
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class FieldViolation(msgspec.Struct, kw_only=True, frozen=True):
    """One field that breaks a rule."""

    field: str
    """Its path, such as `model.top_p`."""
    description: str


class ErrorObject(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What went wrong. All keys but `violations` are always present."""

    message: str
    type: str
    param: str | None
    """The first field that is wrong, as a path."""
    code: str
    """The reason, a value of `parley.errors.v1.Reason`, in lower case; `invalid_api_key`, as OpenAI says, for 401."""
    violations: list[FieldViolation] = []
    """Every field that is wrong, if any."""


class ErrorBody(msgspec.Struct, kw_only=True, frozen=True):
    """The body of every error, as OpenAI writes it."""

    error: ErrorObject


class RouteNotFound(ServiceError):
    """No route has this path, or this method at this path."""

    code = Code.NOT_FOUND
    reason = Reason.ROUTE_NOT_FOUND

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"there is no {method} {path}")


class MethodNotAllowed(RouteNotFound):
    """The path exists, the method does not. 405, which no canonical code maps to (RFC 9110, 15.5.6)."""

    def __init__(self, method: str, path: str, allowed: str) -> None:
        super().__init__(method, path)
        self.allowed = allowed


class MalformedBody(ServiceError):
    """The body is not JSON, or not of the expected shape."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.MALFORMED_BODY


class UnknownEncoding(MalformedBody):
    """The body has a content coding that is not taken. 415, which no canonical code maps to (RFC 9110, 12.5.3)."""

    def __init__(self) -> None:
        rule = "must be gzip or identity"
        super().__init__(f"Content-Encoding: {rule}", violations=[Violation("Content-Encoding", rule)])


def http_status(error: ServiceError) -> int:
    """Returns the status that the error is answered with."""
    if isinstance(error, MethodNotAllowed):
        return 405
    if isinstance(error, UnknownEncoding):
        return 415
    if "code" in error.metadata and error.reason == Reason.MESSAGE_TOO_LARGE:
        return 400  # what is too large is not the request
    return _STATUS_BY_REASON.get(error.reason) or STATUS[error.code]


def error_body(error: ServiceError) -> ErrorBody:
    """Returns the error as OpenAI's clients expect it."""
    status = http_status(error)
    param = error.violations[0].field if error.violations else error.metadata.get("param", "")
    kind = (
        "requests"
        if error.reason == Reason.RATE_LIMITED
        else _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    )
    violations = [FieldViolation(field=one.field, description=one.description) for one in error.violations]
    return ErrorBody(
        error=ErrorObject(
            message=error.message, type=kind, param=param or None, code=_code(error), violations=violations
        )
    )


def error_headers(error: ServiceError) -> Headers:
    """Returns the headers that say whether and when to retry the request."""
    status = http_status(error)
    headers: Headers = []
    if status in _RETRIED_BY_CLIENTS or status >= 500:
        helps = error.reason in RETRY_HELPS
        headers.append((b"x-should-retry", b"true" if helps else b"false"))
        if helps and status in (409, 429, 503):
            headers.append((b"retry-after", b"%d" % _whole_seconds(error.retry_after)))
            headers += refusal_headers(error)
    if error.code is Code.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b'Bearer realm="parley"'))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode("latin-1")))
    if isinstance(error, UnknownEncoding):
        headers.append((b"accept-encoding", b"gzip"))
    return headers


def _whole_seconds(seconds: float | None) -> int:
    # An error path trusts no number: one that is none would make another error of it.
    return max(1, math.ceil(seconds)) if seconds is not None and math.isfinite(seconds) else 1


_WITH_CODES = (Reason.PROVIDER_REJECTED, Reason.MESSAGE_TOO_LARGE)


def _code(error: ServiceError) -> str:
    if error.code is Code.UNAUTHENTICATED:
        return "invalid_api_key"
    if error.reason in _WITH_CODES and "code" in error.metadata:
        return error.metadata["code"]
    return error.reason.lower()


_encode = msgspec.json.Encoder().encode


def encode_error(error: ServiceError) -> bytes:
    """Returns the body as JSON."""
    return _encode(error_body(error))
