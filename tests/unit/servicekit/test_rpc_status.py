from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.errors import (
    Code,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    MessageTooLarge,
    RemoteError,
    ServiceError,
    Unavailable,
    UnknownMethod,
    Violation,
)
from servicekit.rpc_status import DETAILS_KEY, STATUS_CODES, from_rpc_error, to_grpc_status, to_status


def details_of(status: status_pb2.Status) -> dict[str, Any]:
    found = {}
    for detail in status.details:
        message = getattr(error_details_pb2, detail.TypeName().rpartition(".")[2])()
        detail.Unpack(message)
        found[detail.TypeName().rpartition(".")[2]] = message
    return found


def size_on_the_wire(error: ServiceError) -> float:
    """In trailers: the message percent-encoded, the details in base64."""
    _, details, trailing = to_grpc_status(error)
    return len(details.encode()) * 3 + sum(len(value) for _, value in trailing) * 4 / 3


def as_received(error: ServiceError) -> grpc.aio.AioRpcError:
    code, details, trailing = to_grpc_status(error)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details, None)


def bare(code: grpc.StatusCode, details: str = "", *trailing: tuple[str, bytes]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details, None)


def test_every_code_has_its_number_and_grpc_name() -> None:
    assert {code.value for code in Code} == set(range(1, 17))
    assert all(STATUS_CODES[code].value[0] == code.value for code in Code)


def test_a_plain_error_carries_error_info_and_nothing_else() -> None:
    status = to_status(Unavailable("redis"))
    details = details_of(status)
    assert (status.code, status.message) == (14, "redis is unavailable")
    assert set(details) == {"ErrorInfo"}
    assert (details["ErrorInfo"].reason, details["ErrorInfo"].domain) == ("PEER_UNAVAILABLE", "parley")
    assert dict(details["ErrorInfo"].metadata) == {"peer": "redis"}


def test_retry_info_and_quota_failure_come_when_given() -> None:
    details = details_of(to_status(ServiceError("full", retry_after=1.25, quota_subject="agent:a")))
    assert details["RetryInfo"].retry_delay.ToMilliseconds() == 1250
    assert [v.subject for v in details["QuotaFailure"].violations] == ["agent:a"]


def test_violations_become_a_bad_request() -> None:
    details = details_of(to_status(InvalidArgument([Violation("a.b", "is required"), Violation("c", "is odd")])))
    listed = [(v.field, v.description) for v in details["BadRequest"].field_violations]
    assert listed == [("a.b", "is required"), ("c", "is odd")]


def test_violations_beyond_the_header_limit_are_counted() -> None:
    status = to_status(InvalidArgument([Violation(f"messages[{i}]", "must not be empty") for i in range(5000)]))
    listed = details_of(status)["BadRequest"].field_violations
    assert len(listed) > 10
    assert listed[-1].description == f"and {5000 - (len(listed) - 1)} more"


@settings(deadline=None)
@given(
    message=st.text(),
    metadata=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text()),
    violations=st.lists(st.tuples(st.text(), st.text())),
    retry_after=st.none() | st.floats(0, 1e6),
)
def test_a_status_always_fits_the_headers_of_any_peer(
    message: str, metadata: dict[str, str], violations: list[tuple[str, str]], retry_after: float | None
) -> None:
    error = ServiceError(
        message * 50,
        metadata={key: value * 50 for key, value in metadata.items()},
        violations=[Violation(field * 20, text * 50) for field, text in violations],
        retry_after=retry_after,
        quota_subject="s",
    )
    assert size_on_the_wire(error) < 8 * 1024 - 200


def test_the_largest_status_fits_the_headers_of_any_peer() -> None:
    error = ServiceError(
        "ü" * 5000,
        metadata=dict.fromkeys("abcd", "ü" * 5000),
        violations=[Violation("f" * 5000, "ü" * 5000)] * 100,
        retry_after=1e6,
        quota_subject="s" * 5000,
    )
    assert size_on_the_wire(error) < 8 * 1024 - 200


def test_an_error_of_parley_comes_back_whole() -> None:
    sent = RemoteError(
        "session 's' is busy",
        code=Code.ABORTED,
        reason="SESSION_BUSY",
        metadata={"session_id": "s"},
        violations=[Violation("f", "d")],
        retry_after=0.25,
        quota_subject="session:s",
    )
    got = from_rpc_error(as_received(sent), "session_svc")
    assert isinstance(got, RemoteError)
    assert (got.code, got.reason, got.message) == (sent.code, sent.reason, sent.message)
    assert (got.metadata, got.violations) == (sent.metadata, sent.violations)
    assert (got.retry_after, got.quota_subject) == (0.25, "session:s")


def test_no_retry_delay_is_made_up() -> None:
    assert from_rpc_error(as_received(Unavailable("redis")), "session_svc").retry_after is None


@pytest.mark.parametrize(
    ("code", "details", "expected", "reason"),
    [
        ("UNAVAILABLE", "connect: connection refused", Unavailable, "PEER_UNAVAILABLE"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded, "DEADLINE_EXCEEDED"),
        ("CANCELLED", "bye", Unavailable, "PEER_UNAVAILABLE"),
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (9 vs. 8)", MessageTooLarge, None),
        ("RESOURCE_EXHAUSTED", "Concurrent RPC limit exceeded!", Unavailable, "PEER_UNAVAILABLE"),
        ("RESOURCE_EXHAUSTED", "out of secret memory", Internal, "INTERNAL"),
        ("UNKNOWN", "psycopg.Error: secret", Internal, "INTERNAL"),
        ("UNIMPLEMENTED", "secret", UnknownMethod, "NOT_IMPLEMENTED"),
    ],
)
def test_a_failure_on_the_way_is_named_without_its_text(
    code: str, details: str, expected: type[ServiceError], reason: str | None
) -> None:
    error = from_rpc_error(bare(grpc.StatusCode[code], details), "session_svc")
    assert type(error) is expected
    assert error.reason == (reason or "MESSAGE_TOO_LARGE")
    assert "secret" not in error.message


def test_the_limit_of_a_message_too_large_is_told() -> None:
    error = from_rpc_error(bare(grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (9 vs. 8)"))
    assert error.metadata == {"limit_bytes": "8"}


def test_another_domains_error_info_is_not_taken_for_ours() -> None:
    status = status_pb2.Status(code=5, message="secret")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="AGENT_NOT_FOUND", domain="example.com"))
    error = from_rpc_error(bare(grpc.StatusCode.NOT_FOUND, "secret", (DETAILS_KEY, status.SerializeToString())), "p")
    assert type(error) is Internal
    assert error.message == "p answered NOT_FOUND"


def test_broken_details_are_passed_over() -> None:
    error = from_rpc_error(bare(grpc.StatusCode.UNAVAILABLE, "", (DETAILS_KEY, b"\xff\xff")), "p")
    assert type(error) is Unavailable
