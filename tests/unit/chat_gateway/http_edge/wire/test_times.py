from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from chat_gateway.http_edge.wire.times import seconds_of, timestamp, to_duration
from servicekit.errors import InvalidArgument


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
