"""Server-sent events as model providers send them: only `data` matters (WHATWG HTML, 9.2.6)."""

MAX_EVENT_BYTES = 1024 * 1024


class EventTooLarge(Exception):
    """An event is larger than `MAX_EVENT_BYTES`."""


class SseParser:
    """Cuts a byte stream into the data of its events, whatever way the network cut it."""

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Returns the data of every event that ends in this chunk. Raises `EventTooLarge`."""
        if not self._rest and not self._data:
            events = _whole_events(chunk)
            if events is not None:
                return events
        buffer = self._rest + chunk if self._rest else chunk
        # A CR at the very end may be half of a CRLF: it waits for the next chunk.
        lines = buffer.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLarge
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> bytes | None:
        if line.endswith(b"\r"):
            line = line[:-1]
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            if len(self._data) > 1 and sum(map(len, self._data)) > MAX_EVENT_BYTES:
                raise EventTooLarge
            return None
        if line or not self._data:
            return None
        event = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data = []
        return event


def _whole_events(chunk: bytes) -> list[bytes] | None:
    """Returns the data of a chunk of whole events with one line each, as nearly all are; None for any other."""
    if not (chunk.startswith(b"data: ") and chunk.endswith(b"\n\n")) or b"\r" in chunk:
        return None
    events = chunk[6:-2].split(b"\n\ndata: ")
    return events if chunk.count(b"\n") == 2 * len(events) else None
