"""Frames of HTTP/2 (RFC 9113) and headers of HPACK (RFC 7541), made by hand: what no client library would send."""

import re
import socket
import struct
import time
from types import TracebackType
from typing import Self

DATA, HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 0, 1, 3, 4, 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_TABLE = struct.pack(">HI", 1, 0)
"""A setting: what the server answers has no indices that would have to be known."""
SECONDS = 60.0
QUIET_SECONDS = 0.5


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    made, value = bytearray([first | limit]), value - limit
    while value >= 128:
        made.append(value % 128 + 128)
        value //= 128
    return bytes([*made, value])


def text(value: bytes) -> bytes:
    return integer(len(value), 7) + value


def literal(name: bytes, value: bytes, *, keep: bool = False) -> bytes:
    """A header; `keep` puts it into the dynamic table, where an index of one byte repeats it."""
    return (b"\x40" if keep else b"\x00") + text(name) + text(value)


def head(path: bytes, *more: bytes) -> bytes:
    """POST, http, the path, an authority, what makes it a call of gRPC, and more headers."""
    call = literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers")
    return b"\x83\x86\x04" + text(path) + b"\x01\x04test" + call + b"".join(more)


def message(data: bytes, *, compressed: bool = False) -> bytes:
    return bytes([compressed]) + struct.pack(">I", len(data)) + data


class Connection:
    """A connection of a client; a context manager."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._received = b""
        self.closed = False
        self._ends: set[int] = set()
        self.send(PREFACE, frame(SETTINGS, 0, 0, NO_TABLE), frame(SETTINGS, ACK, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._socket.close()

    def send(self, *frames: bytes) -> None:
        self._socket.sendall(b"".join(frames))

    def call(self, stream: int, path: bytes, *more: bytes, request: bytes | None = message(b"")) -> None:
        """Opens a call; with a request, also ends its side. b"" ends it without one."""
        self.send(frame(HEADERS, END_HEADERS, stream, head(path, *more)))
        if request is not None:
            self.send(frame(DATA, END_STREAM, stream, request))

    def statuses(self, seconds: float = SECONDS) -> dict[int, bytes]:
        """Returns what calls ended with, by their streams: waits for the first, and then until nothing comes."""
        found: dict[int, bytes] = {}
        end = time.monotonic() + seconds
        while not self.closed and time.monotonic() < end:
            self._socket.settimeout(QUIET_SECONDS if found else max(end - time.monotonic(), 0.01))
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                break
            except ConnectionError:
                data = b""
            self.closed = not data
            self._received += data
            for stream, status in self._ended():
                if stream not in self._ends:  # a reset may follow the end
                    found[stream] = status
                    self._ends.add(stream)
        return found

    def _ended(self) -> list[tuple[int, bytes]]:
        found = []
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + size:
                break
            kind, flags = self._received[3], self._received[4]
            stream, payload = int.from_bytes(self._received[5:9], "big"), self._received[9 : 9 + size]
            self._received = self._received[9 + size :]
            if kind == HEADERS and flags & END_STREAM:
                status = re.search(rb"grpc-status(?:\x01(.)|\x02(..))", payload)
                found.append((stream, (status[1] or status[2]) if status else b""))
            elif kind == RST_STREAM:
                found.append((stream, b"reset"))
        return found
