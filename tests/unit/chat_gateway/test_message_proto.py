"""Times between the domain and the contract."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chat_gateway.convert.times import from_timestamp, to_timestamp


@pytest.mark.parametrize(
    "time",
    [
        datetime.fromtimestamp(0, UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(2026, 11, 22, 19, 11, 7, 123_456, timezone(timedelta(hours=5, minutes=30))),
        datetime(9999, 12, 31, 23, 59, 59, 1, UTC),
    ],
)
def test_a_time_goes_there_and_back(time: datetime) -> None:
    expected = Timestamp()
    expected.FromDatetime(time)
    assert to_timestamp(time) == expected
    assert abs(from_timestamp(expected) - time) < timedelta(milliseconds=0.1)
