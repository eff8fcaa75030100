import pytest

from servicekit.errors import (
    Code,
    InvalidArgument,
    RemoteError,
    ServiceError,
    Unavailable,
    Violation,
    Violations,
)


class Missing(ServiceError):
    code = Code.NOT_FOUND
    reason = "THING_NOT_FOUND"

    def __init__(self, thing: str) -> None:
        super().__init__(f"thing {thing!r} does not exist", metadata={"thing": thing})


def test_a_subclass_carries_its_code_reason_message_and_metadata() -> None:
    error = Missing("x")
    assert (error.code, error.reason, error.message, str(error)) == (
        Code.NOT_FOUND,
        "THING_NOT_FOUND",
        "thing 'x' does not exist",
        "thing 'x' does not exist",
    )
    assert error.metadata == {"thing": "x"}
    assert (error.violations, error.retry_after, error.quota_subject) == ((), None, None)


def test_violations_that_are_collected_or_long_take_a_bounded_place() -> None:
    found = Violations()
    for number in range(10_000):
        found.add(f"items[{number}]", "is wrong")
    assert len(found.fields()) == 100, "others are only counted"
    long = InvalidArgument([Violation("x" * 100_000, "y" * 100_000)] * 100)
    assert sum(len(one.field) + len(one.description) for one in long.violations) < 100_000
    assert len(long.message) < 10_000


def test_metadata_is_the_errors_own_copy() -> None:
    given = {"a": "1"}
    error = ServiceError("no", metadata=given)
    error.metadata["a"] = "2"
    assert given == {"a": "1"}
    assert ServiceError("other").metadata == {}


def test_a_remote_error_does_not_change_its_class() -> None:
    RemoteError("gone", code=Code.ABORTED, reason="ETAG_MISMATCH")
    assert (RemoteError.code, RemoteError.reason) == (Code.INTERNAL, "INTERNAL")


def test_violations_are_reported_all_at_once() -> None:
    violations = Violations()
    violations.check()
    assert not violations
    violations.add("agent.id", "must be lower case")
    violations.add("agent.name", "is required")
    with pytest.raises(InvalidArgument) as caught:
        violations.check()
    assert caught.value.violations == (
        Violation("agent.id", "must be lower case"),
        Violation("agent.name", "is required"),
    )
    assert caught.value.message == "agent.id: must be lower case; agent.name: is required"
    assert caught.value.reason == "INVALID_FIELD"


def test_unavailable_names_its_peer() -> None:
    error = Unavailable("redis", retry_after=0.5)
    assert error.metadata == {"peer": "redis"}
    assert "redis" in error.message
    assert error.retry_after == 0.5
