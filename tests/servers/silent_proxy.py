"""A proxy before PostgreSQL that falls silent."""

import asyncio
import contextlib
import socket
import struct
from typing import Literal

from tests.servers.before_postgres import BeforePostgres

Fault = Literal["silent", "no requests", "no replies", "slow", "reset"]


class Proxy(BeforePostgres):
    """Stands before PostgreSQL and can fall silent: connections stay, new ones are taken, nothing is passed on."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._open = asyncio.Event()
        self._open.set()
        self._left: int | None = None
        self._fault: Fault = "silent"
        self._broken = False
        self._thawed = asyncio.Event()

    def freeze_after(self, messages: int, fault: Fault = "silent") -> None:
        """Falls silent once that many more pieces have been passed on, in both directions together.

        Another `fault` is silence in one direction, a byte a second, or a reset of each piece's connection.
        """
        self._left = messages
        self._fault = fault

    def freeze(self) -> None:
        self._open.clear()

    def thaw(self) -> None:
        self._left = None
        self._broken = False
        self._thawed.set()
        self._open.set()

    def _break(self) -> None:
        self._broken = True
        self._thawed.clear()
        if self._fault == "silent":
            self.freeze()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await self.open_target()
        try:
            await asyncio.gather(
                self._pass(reader, far_writer, writer), self._pass(far_reader, writer, far_writer, True)
            )
        finally:
            far_writer.close()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        replies: bool = False,
    ) -> None:
        """Passes on what comes; `back` leads to where it comes from."""
        while data := await reader.read(65536):
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    self._break()
            await self._open.wait()
            if self._broken and self._fault == ("no replies" if replies else "no requests"):
                continue
            if self._broken and self._fault == "reset":
                reset(writer)
                reset(back)
                return
            while self._broken and self._fault == "slow" and len(data) > 1:
                writer.write(data[:1])
                data = data[1:]
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._thawed.wait(), 1)
            writer.write(data)
            await writer.drain()
        writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with an RST."""
    wire = writer.get_extra_info("socket")
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
