"""A TCP proxy that breaks connections on demand: kernels here lack netem, so faults of a network are made by a process.

All proxies of a test live on one thread with an event loop of its own, and are told what to do from any other.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from parley_cli.processes.ports import LOOPBACK
from tests.servers.ports import free_port

CHUNK_BYTES = 64 * 1024
MAX_CONNECTIONS = 512
CONNECT_SECONDS = 10.0
CALL_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LostReply:
    """`marker` is forwarded; nothing comes back, and `linger` seconds later the connection breaks."""

    marker: bytes
    linger: float


class FaultProxy:
    """Forwards one port to one server. Made by `Proxies.to`; every method may be called from any thread.

    It starts whole. `delay`, `blackhole` and `refuse` last until `heal`; `reset`, `cut` and `lose_reply` happen once.
    """

    def __init__(self, proxies: "Proxies", name: str, host: str, port: int) -> None:
        self.name = name
        self.port = free_port()
        self.lost_replies = 0
        """How many connections `lose_reply` broke."""
        self._proxies = proxies
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self.latency = 0.0
        self.open = asyncio.Event()
        self.cuts = 0
        self.lost_reply: LostReply | None = None

    @property
    def address(self) -> str:
        """`host:port` to connect to."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections it forwards now."""
        return len(self._links)

    def heal(self) -> None:
        """Forward again as if nothing had been; what a blackhole held back arrives now, as after a partition."""
        self._proxies.call(self._heal())

    def delay(self, seconds: float) -> None:
        """Hold back every chunk, both ways, for so long."""
        self._proxies.soon(lambda: setattr(self, "latency", seconds))

    def blackhole(self) -> None:
        """Forward nothing more, and keep every connection open."""
        self._proxies.soon(self.open.clear)

    def reset(self) -> None:
        """Break every connection (RST to both sides)."""
        self._proxies.soon(self._reset)

    def refuse(self) -> None:
        """Close the port, so that nobody connects, and break every connection."""
        self._proxies.call(self._refuse())

    def cut(self) -> None:
        """Break the next connection on which anything comes back, half-way through it."""
        self._proxies.soon(lambda: setattr(self, "cuts", self.cuts + 1))

    def lose_reply(self, marker: bytes, linger: float = 0.5) -> None:
        """Once `marker` was forwarded to the server, let nothing come back; break that connection `linger` s later."""
        self._proxies.soon(lambda: setattr(self, "lost_reply", LostReply(marker, linger)))

    async def listen(self) -> None:
        """Open the port."""
        self.open.set()
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)

    async def close(self) -> None:
        """Close the port and break every connection."""
        await self._refuse()
        tasks = [task for link in self._links for task in link.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _heal(self) -> None:
        self.latency, self.cuts, self.lost_reply = 0.0, 0, None
        self.open.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._reset()

    def _reset(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._links) >= MAX_CONNECTIONS:
            _abort(writer)
            return
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self.open.wait()
                upstream = await asyncio.open_connection(*self._target)
        except (OSError, TimeoutError):
            _abort(writer)
            return
        link = _Link(self, (reader, writer), upstream)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection through a proxy."""

    def __init__(self, proxy: FaultProxy, client: Stream, server: Stream) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._muted = False
        self._seen = b""
        self.tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self.tasks = [
            loop.create_task(self._pump(self._client[0], self._server[1], self._before_request)),
            loop.create_task(self._pump(self._server[0], self._client[1], self._before_reply)),
        ]
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.reset()

    def reset(self) -> None:
        for _, writer in (self._client, self._server):
            _abort(writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, before: Callable[[bytes], bytes]
    ) -> None:
        proxy = self._proxy
        try:
            while data := await reader.read(CHUNK_BYTES):
                if proxy.latency:
                    await asyncio.sleep(proxy.latency)
                await proxy.open.wait()
                data = before(data)
                if data:
                    writer.write(data)
                    await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            self.reset()

    def _before_request(self, data: bytes) -> bytes:
        lost = self._proxy.lost_reply
        if lost is not None and not self._muted:
            seen = self._seen + data
            if lost.marker in seen:
                self._muted = True
                self._proxy.lost_reply = None
                self._proxy.lost_replies += 1
                asyncio.get_running_loop().call_later(lost.linger, self.reset)
            self._seen = seen[-len(lost.marker) :]
        return data

    def _before_reply(self, data: bytes) -> bytes:
        if self._muted:
            return b""
        if self._proxy.cuts:
            self._proxy.cuts -= 1
            self._muted = True
            # Not at once: the half that is sent first must leave before the connection breaks.
            asyncio.get_running_loop().call_later(0.01, self.reset)
            return data[: len(data) // 2]
        return data


def _abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxies:
    """The thread that the proxies of a test live on; a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxies", daemon=True)
        self._proxies: list[FaultProxy] = []

    def to(self, name: str, address: str) -> FaultProxy:
        """Return a new proxy, listening, in front of `address` (`host:port`)."""
        host, _, port = address.rpartition(":")
        proxy = FaultProxy(self, name, host, int(port))
        self.call(proxy.listen())
        self._proxies.append(proxy)
        return proxy

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the proxies' loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def soon(self, work: Callable[[], object]) -> None:
        """Run a function on the proxies' loop, and wait until it has run."""

        async def run() -> None:
            work()

        self.call(run())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self._proxies:
            self.call(proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()
