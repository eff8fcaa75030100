"""Times, merge patches, complaints about bodies."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from chat_gateway.http_edge.admin.merge_patch import merge
from chat_gateway.http_edge.admin.routing import merged_etag
from chat_gateway.http_edge.wire.auth import acting_user
from chat_gateway.http_edge.wire.bodies import MAX_DEPTH, ClientGone, check_depth, read_body, wrong_shape
from chat_gateway.http_edge.wire.errors import MalformedBody
from chat_gateway.http_edge.wire.times import seconds_of, timestamp, to_duration
from servicekit.errors import InvalidArgument, MessageTooLarge


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(2026, 5, 4, 3, 2, 0, tzinfo=UTC), "2026-05-04T03:02:00Z"),
        (datetime(2026, 5, 4, 3, 2, 10, 120_000, tzinfo=UTC), "2026-05-04T03:02:10.12Z"),
        (datetime(2026, 5, 4, 0, 30, tzinfo=timezone(timedelta(hours=2))), "2026-05-03T22:30:00Z"),
    ],
)
def test_times(time: datetime, text: str) -> None:
    assert timestamp(time) == text


@pytest.mark.parametrize(("text", "seconds"), [("1800s", 1800), ("0s", 0), ("1.5s", 1.5), ("-3s", -3)])
def test_durations(text: str, seconds: float) -> None:
    duration = to_duration(text, "f")
    assert duration.ToTimedelta() == timedelta(seconds=seconds)
    assert to_duration(seconds_of(duration), "f") == duration


@pytest.mark.parametrize("text", ["", "30m", "1800", "s", "1e3s", " 1s", "1s ", "1.s", "999999999999s", "१s", "1s\n"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        to_duration(text, "session.idle_ttl")
    assert caught.value.violations[0].field == "session.idle_ttl"


@given(st.integers(-(10**11), 10**11), st.integers(0, 999_999_999))
def test_durations_go_round(seconds: int, nanos: int) -> None:
    duration = Duration(seconds=seconds, nanos=-nanos if seconds < 0 else nanos)
    assert to_duration(seconds_of(duration), "f") == duration


@pytest.mark.parametrize(
    ("target", "patch", "result"),  # the examples of RFC 7396, appendix A
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches(target: object, patch: object, result: object) -> None:
    assert merge(target, patch) == result


def test_merging_leaves_the_target_alone() -> None:
    target = {"a": {"b": 1}}
    merge(target, {"a": {"b": 2}})
    assert target == {"a": {"b": 1}}


class _Inner(msgspec.Struct, forbid_unknown_fields=True):
    n: int


class _Outer(msgspec.Struct, forbid_unknown_fields=True):
    items: list[_Inner]
    label: str = ""


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"items":[{"n":1},{"n":"x"}]}', "items[1].n"),
        (b'{"items":[{"m":1}]}', "items[0].m"),
        (b'{"items":[{}]}', "items[0].n"),
        (b'{"items":[],"x`y":1}', "x`y"),
        (b"{}", "items"),
        (b"[]", ""),
    ],
)
def test_a_complaint_names_the_field(body: bytes, param: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=_Outer)
    error = wrong_shape(str(caught.value))
    assert error.violations[0].field == param
    assert error.message.startswith(f"{param}: " if param else "the body has the wrong shape: ")


def test_depth_is_bounded() -> None:
    deep: object = "x"
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    check_depth(deep, "parameters")
    with pytest.raises(MalformedBody):
        check_depth({"a": [deep]}, "parameters")


async def test_a_body_is_read_no_further_than_its_limit() -> None:
    asked = 0

    async def receive():
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    with pytest.raises(MessageTooLarge) as caught:
        await read_body(receive, 25, 1.0)
    assert asked == 3
    assert caught.value.metadata == {"limit_bytes": "25"}


async def test_a_client_that_leaves_before_its_body_is_whole() -> None:
    messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    with pytest.raises(ClientGone):
        await read_body(receive, 25, 1.0)


@pytest.mark.parametrize(
    ("header", "body", "etag"),
    [
        (None, None, ""),
        ('"e1"', None, "e1"),
        ('W/"e1"', "e1", "e1"),
        ("*", None, ""),
        ("*", "e1", "e1"),
        ("e1", "", "e1"),
    ],
)
def test_etags_by_header_or_body(header: str | None, body: str | None, etag: str) -> None:
    assert merged_etag(header, body) == etag


def test_contradictions_between_header_and_body() -> None:
    with pytest.raises(InvalidArgument):
        merged_etag('"e1"', "e2")
    with pytest.raises(InvalidArgument):
        acting_user("ann", "bob")
    assert acting_user("ann", None) == acting_user(None, "ann") == acting_user("ann", "ann") == "ann"
