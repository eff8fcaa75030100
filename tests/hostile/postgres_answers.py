"""A server before PostgreSQL that answers statements, or logins, as no PostgreSQL does."""

import asyncio
import contextlib
import itertools
import struct
from collections.abc import Iterable, Iterator

from tests.servers.before_postgres import BeforePostgres

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
LONGEST = struct.pack("!i", 2**31 - 1)
MEBIBYTE = b"x" * 1048576


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def error(text: bytes, kind: bytes = b"E") -> bytes:
    return message(kind, b"SERROR\0VERROR\0CXX000\0M" + text + b"\0\0")


def status(name: bytes, value: bytes) -> bytes:
    return message(b"S", name + b"\0" + value + b"\0")


def endless(piece: bytes) -> Iterator[bytes]:
    return itertools.repeat(piece * max(1, 65536 // len(piece)))


READY = message(b"Z", b"I")
LOGGED_IN = message(b"R", struct.pack("!i", 0))
PREPARED = message(b"1", b"") + message(b"2", b"")
COLUMN = message(b"T", struct.pack("!h", 1) + b"c\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0))
TWO_VALUES = message(b"D", struct.pack("!h", 2) + (struct.pack("!i", 1) + b"1") * 2)

Answer = tuple[bytes | Iterable[bytes], ...]
"""What is sent, piece by piece; then nothing more."""


def answer_of(attack: str) -> Answer:
    """Returns what is sent in place of an answer, which is begun anew each time."""
    return {
        "garbage": (b"\xff\x00garbage" * 100,),
        "http": (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
        "a negative length": (b"D" + struct.pack("!i", -5),),
        "a description and nothing more": (PREPARED + COLUMN,),
        "a row without an end": (PREPARED + COLUMN + b"D" + LONGEST + struct.pack("!hi", 1, 2**31 - 20), [MEBIBYTE]),
        "an error without an end": (b"E" + LONGEST + b"M", [MEBIBYTE]),
        "a long error": (error(MEBIBYTE) + READY,),
        "a notice without an end": (b"N" + LONGEST + b"M", [MEBIBYTE]),
        "endless notices": (endless(error(b"x" * 200, b"N")),),
        "a huge status": (status(b"name", MEBIBYTE),),
        "too many values": (PREPARED + COLUMN + TWO_VALUES + message(b"C", b"SELECT 1\0") + READY,),
        "a second login": (LOGGED_IN + READY,),
        "login: garbage": (b"\xff\x00garbage" * 100,),
        "login: another version": (message(b"v", struct.pack("!ii", 99, 0)),),
        "login: an unknown method": (message(b"R", struct.pack("!i", 99)),),
        "login: endless statuses": (LOGGED_IN, (status(b"p%d" % n, b"x" * 20000) for n in itertools.count())),
        "login: an error without an end": (LOGGED_IN + b"E" + LONGEST + b"M", [MEBIBYTE]),
        "login: nothing more": (LOGGED_IN,),
    }[attack]


STATEMENTS = (
    "garbage",
    "http",
    "a negative length",
    "a description and nothing more",
    "a row without an end",
    "an error without an end",
    "a long error",
    "a notice without an end",
    "endless notices",
    "a huge status",
    "too many values",
    "a second login",
)
LOGINS = (
    "login: garbage",
    "login: another version",
    "login: an unknown method",
    "login: endless statuses",
    "login: an error without an end",
    "login: nothing more",
)


class HostilePostgres(BeforePostgres):
    """Passes everything on to PostgreSQL, unless `attack` says how statements, or logins, are answered."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.attack = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._pass_on(reader, writer)
        finally:
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(8)
        if head == SSL_REQUEST:
            writer.write(b"N")
            head = await reader.readexactly(8)
        if self.attack in LOGINS:
            await self._answer(reader, writer)
        far_reader, far_writer = await self.open_target()
        back = asyncio.create_task(self._pass(far_reader, writer))
        try:
            far_writer.write(head)
            used = False
            while data := await reader.read(65536):
                # Not what configures a new connection, or ends one.
                if used and self.attack in STATEMENTS and data[:1] not in b"pX" and b"SET " not in data:
                    back.cancel()
                    await self._answer(reader, writer)
                used = used or data[:1] in b"QP"
                far_writer.write(data)
        finally:
            back.cancel()
            far_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in answer_of(self.attack):
            for piece in [part] if isinstance(part, bytes) else part:
                writer.write(piece)
                await writer.drain()
        while await reader.read(65536):
            pass
        raise ConnectionResetError
