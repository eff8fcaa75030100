"""What hostile servers answer, whatever they are asked: each attack is made of the answer that would be good."""

import functools
import json
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from tests.hostile.server import Answer, Wire, chunk

POISON = "poison"
LATE = "more-behind-it-later"


@dataclass(frozen=True)
class Good:
    """The answer that would be good, and the same one with `POISON` in it."""

    body: bytes
    poison: bytes = b"poison"
    kind: str = "application/json"


@dataclass(frozen=True)
class Attack:
    make: Callable[[Good], Answer]
    may_pass: bool = False
    """Whether the answer may be taken for a good one."""
    is_content: bool = False
    """Whether it is HTTP as it should be, and only its content is not: the connection may be used again."""


def whole(body: bytes, kind: str = "application/json", head: str = "", status: str = "200 OK") -> bytes:
    said = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{head}content-length: {len(body)}\r\n\r\n"
    return said.encode() + body


def begun(good: Good) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {good.kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()


@functools.cache
def packed(wbits: int) -> bytes:
    packer = zlib.compressobj(wbits=wbits)
    return b"".join([packer.compress(b" " * 1024 * 1024) for _ in range(64)]) + packer.flush()


def _ended(wire: Wire, data: bytes, *, by_reset: bool = False) -> None:
    wire.send(data)
    if by_reset:
        wire.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.connection.shutdown(socket.SHUT_RDWR)


def _dripped(wire: Wire, start: bytes) -> None:
    """One byte a second; who asked goes before long."""
    wire.send(start)
    for _ in range(30):
        wire.send(b" ")
        wire.connection.settimeout(1.0)
        try:
            if not wire.connection.recv(65536):
                return
        except TimeoutError:
            continue


def _late(wire: Wire, good: Good) -> None:
    """A good answer, and one for somebody else while nobody waits for one."""
    wire.send(whole(good.body, good.kind))
    if wire.is_left_idle():
        wire.send(whole(good.poison, good.kind))


def sending(make: Callable[[Good], bytes]) -> Callable[[Good], Answer]:
    def attack(good: Good) -> Answer:
        return lambda wire: wire.send(make(good))

    return attack


def endless(make: Callable[[Good], tuple[bytes, bytes]]) -> Callable[[Good], Answer]:
    def attack(good: Good) -> Answer:
        return lambda wire: wire.endless(*make(good))

    return attack


def content(body: bytes) -> Attack:
    return Attack(sending(lambda good: whole(body, good.kind)), is_content=True)


def redirect(location: str, status: str = "307 x", *, may_pass: bool = False) -> Attack:
    make = sending(lambda good: whole(b"", good.kind, f"location: {location}\r\n", status))
    return Attack(make, may_pass=may_pass, is_content=True)


LINE = b"a: " + b"x" * 1000 + b"\r\n"
WIRE: dict[str, Attack] = {
    "endless-body": Attack(endless(lambda good: (begun(good), chunk(b" " * 60_000)))),
    "endless-body-of-no-length": Attack(endless(lambda good: (b"HTTP/1.1 200 OK\r\n\r\n", b" " * 60_000))),
    "endless-headers": Attack(endless(lambda good: (b"HTTP/1.1 200 OK\r\n", LINE))),
    "endless-header": Attack(endless(lambda good: (b"HTTP/1.1 200 OK\r\na: ", b"x" * 60_000))),
    "endless-status": Attack(endless(lambda good: (b"HTTP/1.1 200 ", b"x" * 60_000))),
    "endless-trailers": Attack(endless(lambda good: (begun(good) + chunk(good.body) + b"0\r\n", LINE)), may_pass=True),
    "endless-extension": Attack(endless(lambda good: (begun(good) + b"1;", b"x" * 60_000))),
    "endless-tiny-chunks": Attack(endless(lambda good: (begun(good), chunk(b" ") * 10_000))),
    "endless-1xx": Attack(endless(lambda good: (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100))),
    "endless-error": Attack(endless(lambda good: (begun(good).replace(b"200 OK", b"500 Oops"), chunk(b" " * 60_000)))),
    "nothing": Attack(lambda good: Wire.wait),
    "drip-of-a-head": Attack(lambda good: lambda wire: _dripped(wire, b"HTTP/1.1 200 ")),
    "drip-of-a-body": Attack(lambda good: lambda wire: _dripped(wire, begun(good)[:-2] + b"\r\n")),
    "drip-of-a-length": Attack(
        lambda good: lambda wire: _dripped(wire, whole(b"", good.kind).replace(b": 0", b": 99"))
    ),
    "ended-at-once": Attack(lambda good: lambda wire: _ended(wire, b"")),
    "ended-in-the-head": Attack(lambda good: lambda wire: _ended(wire, b"HTTP/1.1 200 OK\r\nconte")),
    "ended-in-the-body": Attack(lambda good: lambda wire: _ended(wire, whole(good.body, good.kind)[:-1])),
    "ended-in-a-chunk": Attack(lambda good: lambda wire: _ended(wire, begun(good) + chunk(good.body)[:-4])),
    "ended-before-the-last-chunk": Attack(lambda good: lambda wire: _ended(wire, begun(good) + chunk(good.body))),
    "more-behind-it": Attack(
        sending(lambda good: whole(good.body, good.kind) + whole(good.poison, good.kind)), may_pass=True
    ),
    LATE: Attack(lambda good: lambda wire: _late(wire, good), may_pass=True),
    "bad-chunking": Attack(sending(lambda good: begun(good) + b"zz\r\n" + good.body)),
    "two-lengths": Attack(
        sending(lambda good: whole(good.body, good.kind, f"content-length: {len(good.body) - 1}\r\n"))
    ),
    "negative-length": Attack(sending(lambda good: b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n" + good.body)),
    "http2": Attack(sending(lambda good: b"\0\0\x12\4\0\0\0\0\0" + b"\0" * 18)),
    "no-http": Attack(sending(lambda good: b"SSH-2.0-OpenSSH_9.6\r\n")),
    "switched": Attack(
        sending(lambda good: b"HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" + good.body)
    ),
    "gzip-bomb": Attack(sending(lambda good: whole(packed(31), good.kind, "content-encoding: gzip\r\n"))),
    "deflate-bomb": Attack(sending(lambda good: whole(packed(15), good.kind, "content-encoding: deflate\r\n"))),
    "no-gzip": Attack(sending(lambda good: whole(b"\x1f\x8b" + b"x" * 99, good.kind, "content-encoding: gzip\r\n"))),
    "brotli-of-nothing-known": Attack(sending(lambda good: whole(b"\x0b" * 99, good.kind, "content-encoding: br\r\n"))),
    "zstd-of-nothing-known": Attack(
        sending(lambda good: whole(b"(\xb5/\xfd" + b"x" * 99, good.kind, "content-encoding: zstd\r\n"))
    ),
}
CONTENT: dict[str, Attack] = {
    "nan": content(b'{"keys": NaN, "id": NaN, "access_token": NaN, "data": [NaN]}'),
    "huge": content(b'{"id": 1' + b"0" * 5000 + b', "expires_in": 1e999}'),
    "deep": content(b'{"keys":' * 50_000),
    "deep-lists": content(b"[" * 50_000 + b"]" * 50_000),
    "wide": content(b"[" + b"[]," * 60_000 + b"[]]"),
    "not-utf8": content(b'{"id": "\xff\xfe\x80"}'),
    "surrogate": content(b'{"id": "\\ud800", "error": "\\ud800"}'),
    "nul": content(b'{"id": "\\u0000", "access_token": "a\\u0000b\\r\\nX: y", "token_type": "bearer"}'),
    "empty": content(b""),
    "null": content(b"null"),
    "list": content(b"[]"),
    "text": content(b'"text"'),
    "html": Attack(sending(lambda good: whole(b"<html>", "text/html")), is_content=True),
    "image": Attack(sending(lambda good: whole(b"\x89PNG", "image/png")), is_content=True),
    "odd-kind": Attack(sending(lambda good: whole(b"{}", "a" * 5000 + "/;;;charset=\xe9")), is_content=True),
    "no-content": Attack(sending(lambda good: b"HTTP/1.1 204 x\r\n\r\n"), is_content=True),
    "status-999": Attack(sending(lambda good: whole(b"{}", status="999 x")), is_content=True),
    "retry-after-centuries": Attack(
        sending(lambda good: whole(b"{}", head="retry-after: 1" + "0" * 400 + "\r\n", status="503 x")), is_content=True
    ),
    "redirect-loop": redirect("?again"),
    "redirect-to-a-private-address": redirect("http://127.0.0.2:1/"),
    "redirect-to-metadata": redirect("http://169.254.169.254/latest/meta-data/"),
    "redirect-to-a-file": redirect("file:///etc/passwd"),
    "redirect-to-gopher": redirect("gopher://127.0.0.1:6379/_INFO"),
    "redirect-to-nowhere": redirect("http://[::"),
    "redirect-303": redirect("?again", "303 x", may_pass=True),
}
ATTACKS = WIRE | CONTENT


def as_good(value: object, poison: object = POISON, kind: str = "application/json") -> Good:
    return Good(json.dumps(value).encode(), json.dumps(poison).encode(), kind)
