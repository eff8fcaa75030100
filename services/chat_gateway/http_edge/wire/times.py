"""Times and durations between JSON and protobuf: RFC 3339 with `Z`, and seconds with an `s` (`"1800s"`)."""

import re
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.errors import InvalidArgument, Violation

_DURATION = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s")


def timestamp(time: datetime) -> str:
    """Returns an aware time as RFC 3339 in UTC, to the microsecond, without zeros that say nothing."""
    text = time.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    return text.rstrip("0").rstrip(".") + "Z"


def proto_timestamp(time: Timestamp) -> str:
    """Returns the same of a protobuf time."""
    return timestamp(time.ToDatetime(UTC))


def seconds_of(duration: Duration) -> str:
    """Returns a duration such as `"1800s"`."""
    return duration.ToJsonString()


def to_duration(text: str, field: str) -> Duration:
    """Returns the duration of `"1800s"`. Raises `InvalidArgument` that names `field`."""
    duration = Duration()
    try:
        if not _DURATION.fullmatch(text):
            raise ValueError(text)
        duration.FromJsonString(text)
    except ValueError:
        raise InvalidArgument([Violation(field, 'must be a number of seconds such as "1800s"')]) from None
    return duration


def to_timestamp(text: str, field: str) -> Timestamp:
    """Returns the time of an RFC 3339 text. Raises `InvalidArgument` that names `field`."""
    time = Timestamp()
    try:
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is None:
            raise ValueError(text)
        time.FromDatetime(parsed.astimezone(UTC))
    except (ValueError, OverflowError):
        raise InvalidArgument([Violation(field, "must be a time such as 2027-01-31T12:00:00Z (RFC 3339)")]) from None
    return time
