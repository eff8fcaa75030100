"""Server-sent events as model providers send them: only `data` matters (WHATWG HTML, 9.2.6)."""

MAX_EVENT_BYTES = 1024 * 1024
MAX_EVENT_LINES = 16 * 1024

BOM = b"\xef\xbb\xbf"
"""A byte order mark, which streams may begin with."""


class EventTooLarge(Exception):
    """An event is larger than it may be, or has more than `MAX_EVENT_LINES` lines."""


class SseParser:
    """Cuts a byte stream into the data of its events, whatever way the network cut it.

    Takes time in proportion to the bytes, and memory up to two events' bound.
    """

    __slots__ = ("_after_cr", "_begun", "_data", "_lines", "_max_event_bytes", "_rest", "_rest_bytes")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._data = bytearray()
        self._lines = 0
        self._begun = False
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Returns the data of every event that ends in this chunk. Raises `EventTooLarge`."""
        if not (self._rest or self._lines or self._after_cr):
            events = _whole_events(chunk)
            if events is not None:
                self._begun = True
                return events
        if not self._begun:
            chunk = self._without_bom(chunk)
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the other half of a CRLF
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return self._split(chunk)

    def close(self) -> list[bytes]:
        """Returns the data of an event that the end of the stream cut off from its blank line, if there is one."""
        if self._rest and not self._begun:
            self._begun = True
        return self._split(b"\n\n")

    def _split(self, chunk: bytes) -> list[bytes]:
        first, *more = chunk.split(b"\n")
        self._rest.append(first)
        self._rest_bytes += len(first)
        if self._rest_bytes > self._max_event_bytes:
            raise EventTooLarge
        if not more:
            return []
        lines = [b"".join(self._rest), *more]
        rest = lines.pop()
        self._rest = [rest] if rest else []
        self._rest_bytes = len(rest)
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> bytes | None:
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                if self._lines:
                    self._data += b"\n"
                self._data += value[1:] if value.startswith(b" ") else value
                self._lines += 1
                if len(self._data) > self._max_event_bytes or self._lines > MAX_EVENT_LINES:
                    raise EventTooLarge
            return None
        if not self._lines:
            return None
        event = bytes(self._data)
        self._data.clear()
        self._lines = 0
        return event

    def _without_bom(self, chunk: bytes) -> bytes:
        """Returns the stream's first bytes without a byte order mark; nothing while they may still become one."""
        start = b"".join(self._rest) + chunk
        if len(start) < len(BOM) and BOM.startswith(start):
            self._rest, self._rest_bytes = [start], len(start)
            return b""
        self._rest, self._rest_bytes, self._begun = [], 0, True
        return start.removeprefix(BOM)


def _whole_events(chunk: bytes) -> list[bytes] | None:
    """Returns the data of a chunk of whole events with one line each, as nearly all are; None for any other."""
    if not (chunk.startswith(b"data: ") and chunk.endswith(b"\n\n")) or b"\r" in chunk:
        return None
    events = chunk[6:-2].split(b"\n\ndata: ")
    return events if chunk.count(b"\n") == 2 * len(events) else None
