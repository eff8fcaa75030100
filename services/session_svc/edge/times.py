"""Times and spans of time between milliseconds and protobuf."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(milliseconds: int) -> Timestamp:
    """Returns a time as the contract has it."""
    return Timestamp(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def milliseconds(duration: Duration) -> int:
    """Returns a span of time in whole milliseconds."""
    return duration.seconds * 1000 + duration.nanos // 1_000_000


def seconds(duration: Duration) -> float:
    """Returns a span of time in seconds."""
    return float(duration.seconds + duration.nanos / 1e9)


def duration(milliseconds: int) -> Duration:
    """Returns a span of time as the contract has it."""
    return Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def fill_time(message: Timestamp | Duration, milliseconds: int) -> None:
    """Sets a time or a span of time in place: a message made first and handed to a constructor is copied."""
    message.seconds = milliseconds // 1000
    message.nanos = milliseconds % 1000 * 1_000_000
