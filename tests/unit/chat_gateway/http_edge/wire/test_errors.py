"""Every reason of the contract as an HTTP error."""

import msgspec
import pytest

from chat_gateway.http_edge.wire.errors import (
    MethodNotAllowed,
    RouteNotFound,
    encode_error,
    error_headers,
    http_status,
)
from parley.errors.v1.reason_pb2 import Reason
from servicekit.errors import Code, InvalidArgument, RemoteError, Violation

# reason: (code of the contract, HTTP status, what x-should-retry says where there is one)
REASONS: dict[str, tuple[Code, int, str | None]] = {
    "INVALID_FIELD": (Code.INVALID_ARGUMENT, 400, None),
    "INVALID_PAGE_TOKEN": (Code.INVALID_ARGUMENT, 400, None),
    "TEMPLATE_NOT_FOUND": (Code.INVALID_ARGUMENT, 400, None),
    "PARAMETERS_INVALID": (Code.INVALID_ARGUMENT, 400, None),
    "MESSAGE_TOO_LARGE": (Code.INVALID_ARGUMENT, 413, None),
    "MALFORMED_BODY": (Code.INVALID_ARGUMENT, 400, None),
    "PLACEHOLDER_MISSING": (Code.INVALID_ARGUMENT, 400, None),
    "UNSUPPORTED_FIELD": (Code.INVALID_ARGUMENT, 400, None),
    "FIELD_NOT_OVERRIDABLE": (Code.INVALID_ARGUMENT, 400, None),
    "AGENT_NOT_FOUND": (Code.NOT_FOUND, 404, None),
    "REVISION_NOT_FOUND": (Code.NOT_FOUND, 404, None),
    "SESSION_NOT_FOUND": (Code.NOT_FOUND, 404, None),
    "TURN_NOT_FOUND": (Code.NOT_FOUND, 404, None),
    "PROJECT_NOT_FOUND": (Code.NOT_FOUND, 404, None),
    "API_KEY_NOT_FOUND": (Code.NOT_FOUND, 404, None),
    "ROUTE_NOT_FOUND": (Code.NOT_FOUND, 404, None),
    "MODEL_NOT_FOUND": (Code.NOT_FOUND, 404, None),
    "TOOL_SERVER_NOT_FOUND": (Code.NOT_FOUND, 404, None),
    "AGENT_ALREADY_EXISTS": (Code.ALREADY_EXISTS, 409, "false"),
    "SESSION_ALREADY_EXISTS": (Code.ALREADY_EXISTS, 409, "false"),
    "TEMPLATE_CONFLICT": (Code.ALREADY_EXISTS, 409, "false"),
    "PROJECT_ALREADY_EXISTS": (Code.ALREADY_EXISTS, 409, "false"),
    "TOOL_SERVER_ALREADY_EXISTS": (Code.ALREADY_EXISTS, 409, "false"),
    "ETAG_MISMATCH": (Code.ABORTED, 409, "false"),
    "SESSION_BUSY": (Code.ABORTED, 409, "true"),
    "LEASE_LOST": (Code.ABORTED, 409, "true"),
    "TURN_INTERRUPTED": (Code.ABORTED, 409, "false"),
    "TURN_HANDED_OVER": (Code.ABORTED, 409, "false"),
    "TURN_CANCELLED": (Code.ABORTED, 409, "false"),
    "TURN_GIVEN_UP": (Code.ABORTED, 409, "false"),
    "IDEMPOTENCY_KEY_REUSED": (Code.ABORTED, 409, "false"),
    "HISTORY_MISMATCH": (Code.ABORTED, 409, "false"),
    "SESSION_AGENT_MISMATCH": (Code.FAILED_PRECONDITION, 400, None),
    "AGENT_DELETED": (Code.FAILED_PRECONDITION, 400, None),
    "PROVIDER_UNKNOWN": (Code.FAILED_PRECONDITION, 400, None),
    "TEMPLATE_NOT_BUILDABLE": (Code.FAILED_PRECONDITION, 400, None),
    "SESSION_FULL": (Code.FAILED_PRECONDITION, 400, None),
    "PROJECT_IN_USE": (Code.FAILED_PRECONDITION, 400, None),
    "TOOL_SERVER_IN_USE": (Code.FAILED_PRECONDITION, 400, None),
    "EMBEDDINGS_UNSUPPORTED": (Code.FAILED_PRECONDITION, 400, None),
    "APPROVAL_UNKNOWN": (Code.FAILED_PRECONDITION, 400, None),
    "TURN_NOT_LAST": (Code.FAILED_PRECONDITION, 400, None),
    "TURN_QUEUE_FULL": (Code.RESOURCE_EXHAUSTED, 429, "true"),
    "RATE_LIMITED": (Code.RESOURCE_EXHAUSTED, 429, "true"),
    "PROVIDER_UNAVAILABLE": (Code.UNAVAILABLE, 503, "true"),
    "PROVIDER_TIMEOUT": (Code.DEADLINE_EXCEEDED, 504, "true"),
    "PROVIDER_BAD_RESPONSE": (Code.INTERNAL, 500, "false"),
    "PROVIDER_REJECTED": (Code.FAILED_PRECONDITION, 400, None),
    "PROVIDER_RATE_LIMITED": (Code.RESOURCE_EXHAUSTED, 429, "true"),
    "PROVIDER_MISCONFIGURED": (Code.INTERNAL, 502, "false"),
    "TOOL_CALLS_REPEATED": (Code.ABORTED, 409, "false"),
    "AGENT_DEPTH_EXCEEDED": (Code.FAILED_PRECONDITION, 400, None),
    "TOOL_SERVER_UNAVAILABLE": (Code.UNAVAILABLE, 503, "true"),
    "EGRESS_DENIED": (Code.FAILED_PRECONDITION, 400, None),
    "PEER_UNAVAILABLE": (Code.UNAVAILABLE, 503, "true"),
    "DRAINING": (Code.UNAVAILABLE, 503, "true"),
    "CANCELLED": (Code.CANCELLED, 499, None),
    "TURN_DAMAGED": (Code.DATA_LOSS, 500, "false"),
    "DEADLINE_EXCEEDED": (Code.DEADLINE_EXCEEDED, 504, "false"),
    "CURSOR_TOO_OLD": (Code.OUT_OF_RANGE, 400, None),
    "WATCHER_TOO_SLOW": (Code.ABORTED, 409, "false"),
    "UNAUTHENTICATED": (Code.UNAUTHENTICATED, 401, None),
    "SCOPE_MISSING": (Code.PERMISSION_DENIED, 403, None),
    "PROJECT_DENIED": (Code.PERMISSION_DENIED, 403, None),
    "USER_DENIED": (Code.PERMISSION_DENIED, 403, None),
    "TOO_MANY_API_KEYS": (Code.RESOURCE_EXHAUSTED, 429, "false"),
    "TOO_MANY_CALLS": (Code.RESOURCE_EXHAUSTED, 429, "true"),
    "TOO_MANY_WATCHES": (Code.RESOURCE_EXHAUSTED, 429, "true"),
    "NOT_IMPLEMENTED": (Code.UNIMPLEMENTED, 501, "false"),
    "INTERNAL": (Code.INTERNAL, 500, "false"),
}
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def test_the_table_has_every_reason_of_the_contract() -> None:
    assert set(REASONS) == {name.removeprefix("REASON_") for name, _ in Reason.items()} - {"UNSPECIFIED"}


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_as_an_http_error(reason: str) -> None:
    code, status, should_retry = REASONS[reason]
    error = RemoteError("what went wrong", code=code, reason=reason)
    headers = dict(error_headers(error))
    assert http_status(error) == status
    assert msgspec.json.decode(encode_error(error)) == {
        "error": {
            "message": "what went wrong",
            "type": "requests"
            if reason == "RATE_LIMITED"
            else TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
            "param": None,
            "code": "invalid_api_key" if status == 401 else reason.lower(),
        }
    }
    assert (b"www-authenticate" in headers) == (status == 401)
    assert headers.get(b"x-should-retry") == (should_retry.encode() if should_retry else None)
    assert (b"retry-after" in headers) == (should_retry == "true" and status in (409, 429, 503))


@pytest.mark.parametrize(
    ("retry_after", "header"), [(None, b"1"), (0.0, b"1"), (0.2, b"1"), (1.0, b"1"), (1.01, b"2"), (30.0, b"30")]
)
def test_retry_after_is_whole_seconds_and_never_0(retry_after: float | None, header: bytes) -> None:
    error = RemoteError("busy", code=Code.ABORTED, reason="SESSION_BUSY", retry_after=retry_after)
    assert dict(error_headers(error))[b"retry-after"] == header


def test_a_retry_that_can_not_help_is_not_timed() -> None:
    error = RemoteError("used", code=Code.ABORTED, reason="IDEMPOTENCY_KEY_REUSED", retry_after=5.0)
    assert dict(error_headers(error)) == {b"x-should-retry": b"false"}


def test_the_first_violation_is_the_param() -> None:
    error = InvalidArgument([Violation("a.b", "is bad"), Violation("c", "too")])
    assert msgspec.json.decode(encode_error(error))["error"]["param"] == "a.b"
    assert msgspec.json.decode(encode_error(error))["error"]["message"] == "a.b: is bad; c: too"


def test_a_wrong_method_is_405_with_what_is_allowed() -> None:
    error = MethodNotAllowed("PUT", "/v1/agents", "GET, POST")
    assert http_status(error) == 405
    assert dict(error_headers(error)) == {b"allow": b"GET, POST"}
    assert http_status(RouteNotFound("GET", "/x")) == 404
