"""Fields of messages that may not be set."""

from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message


def duration_of(message: Message, field: str) -> timedelta | None:
    """Returns a duration that is set, cut to microseconds; one beyond Python's is its longest. None when not set."""
    if not message.HasField(field):
        return None
    duration: Duration = getattr(message, field)
    try:
        return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)
    except OverflowError:
        return timedelta.max if duration.seconds > 0 else timedelta.min


def set_or_none(message: Message, field: str) -> Any:
    """Returns a field's value, None when it is not set."""
    return getattr(message, field) if message.HasField(field) else None
