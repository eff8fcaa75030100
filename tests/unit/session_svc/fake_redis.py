"""Servers that speak Redis' protocol and answer what a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import cast

import hiredis


class FakeNode:
    """A server that answers by `answer`, and not at all where that is empty.

    What it was sent, but for greetings and questions about slots, is in `ran`.
    """

    def __init__(self) -> None:
        self.port = 0
        self.ran: list[str] = []
        self.silent = False
        """Whether even a PING is not answered."""
        self.left = 0
        """How many connections have ended."""
        self.slots: Callable[[], list[tuple[int, int, FakeNode]]] = list
        self.answer: Callable[[str], str] = lambda command: f"+{command}"

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["FakeNode"]:
        server = await asyncio.get_running_loop().create_server(lambda: FakeConnection(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    def reply(self, command: str) -> str:
        match command.split():
            case ["CLUSTER", "SLOTS"]:
                ranges = [
                    f"*3\r\n:{first}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{node.port}"
                    for first, last, node in self.slots()
                ]
                return "\r\n".join([f"*{len(ranges)}", *ranges])
            case ["PING"]:
                return "" if self.silent else "+PONG"
            case ["CLIENT", *_]:
                return "+OK"
        self.ran.append(command)
        return self.answer(command)


class FakeConnection(asyncio.Protocol):
    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self._reader = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while command := self._reader.gets():
            if reply := self._node.reply(b" ".join(command).decode()):
                self._transport.write(reply.encode() + b"\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._node.left += 1
