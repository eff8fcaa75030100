"""Errors as exceptions: every reason has its class, and nothing that a status says is lost."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

import parley_client
from parley.chat.v1 import chat_service_pb2 as pb
from parley.errors.v1 import reason_pb2
from parley_client import Client
from parley_client.errors import FAMILIES, class_of
from tests.unit.parley_client.scripted import Scripted, fails, gives, reason

UNKNOWN = grpc.StatusCode.UNKNOWN


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as running:
        yield running


@pytest.mark.parametrize("name", reason_pb2.Reason.keys())
def test_every_reason_has_a_class(name: str) -> None:
    number = reason_pb2.Reason.Value(name)
    family = class_of(name.removeprefix("REASON_"), UNKNOWN)
    assert issubclass(family, FAMILIES[number - number % 20])
    assert getattr(parley_client, family.__name__) is family


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AGENT_NOT_FOUND", parley_client.NotFound),
        ("SESSION_BUSY", parley_client.Conflict),
        ("PROVIDER_REJECTED", parley_client.UpstreamError),
        ("RATE_LIMITED", parley_client.LimitExceeded),
        ("DRAINING", parley_client.Unavailable),
        ("DEADLINE_EXCEEDED", parley_client.DeadlineExceeded),
        ("USER_DENIED", parley_client.AccessDenied),
    ],
)
def test_families(name: str, expected: type) -> None:
    assert class_of(name, UNKNOWN) is expected


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_a_reason_of_a_later_release_counts_by_its_code(code: grpc.StatusCode) -> None:
    assert issubclass(class_of("FROM_TOMORROW", code), parley_client.ParleyError)
    assert class_of("FROM_TOMORROW", grpc.StatusCode.NOT_FOUND) is parley_client.NotFound


def test_all_that_a_status_says(server: Scripted) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="input.messages", description="is required")
    bad.field_violations.add(field="input.user_id", description="is too long")
    quota = error_details_pb2.QuotaFailure()
    quota.violations.add(subject="agent:support", description="as many turns as it may")
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    details = (reason("TURN_QUEUE_FULL", scope="agent"), bad, quota, retry)
    server.answers["Complete"] = [fails(grpc.StatusCode.RESOURCE_EXHAUSTED, *details, message="too many turns")]
    with Client(server.target) as client, pytest.raises(parley_client.LimitExceeded) as caught:
        client.complete("support", "hi")
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TURN_QUEUE_FULL")
    assert error.metadata == {"scope": "agent"}
    assert [(one.field, one.description) for one in error.violations] == [
        ("input.messages", "is required"),
        ("input.user_id", "is too long"),
    ]
    assert (error.retry_delay, error.quota_subject) == (1.5, "agent:support")
    assert str(error) == "TURN_QUEUE_FULL: too many turns"
    assert isinstance(error.__cause__, grpc.RpcError)


def test_a_status_of_another_domain_has_no_reason(server: Scripted) -> None:
    foreign = error_details_pb2.ErrorInfo(reason="AGENT_NOT_FOUND", domain="proxy.example")
    server.answers["Complete"] = [fails(grpc.StatusCode.PERMISSION_DENIED, foreign)]
    with Client(server.target) as client, pytest.raises(parley_client.AccessDenied) as caught:
        client.complete("support", "hi")
    assert caught.value.reason == ""


def test_nobody_listens() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(parley_client.Unavailable) as caught:
        client.complete("support", "hi", timeout=60)
    assert (caught.value.reason, caught.value.retry_delay) == ("", None)
    with Client("127.0.0.1:1") as client:
        assert not client.is_serving()
    with pytest.raises(ValueError, match="closed"):
        client.is_serving()


def test_a_future_and_a_call_raise_the_same(server: Scripted) -> None:
    server.answers["Complete"] = [
        fails(grpc.StatusCode.NOT_FOUND, reason("AGENT_NOT_FOUND")),
        gives(pb.CompleteResponse()),
    ]
    with Client(server.target) as client:
        with pytest.raises(parley_client.NotFound):
            client.chat.Complete.future(pb.CompleteRequest()).result(20)
        answer, call = client.chat.Complete.with_call(pb.CompleteRequest())
        assert (answer, call.code()) == (pb.CompleteResponse(), grpc.StatusCode.OK)
