"""A server on real sockets that answers each request with whatever bytes its script consists of."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from parley_cli.processes.ports import LOOPBACK

SECONDS = 20.0
"""How long an answer that goes on without end is tried; whoever asked ends it long before."""
MAX_BYTES = 256 * 1024 * 1024
"""Of such an answer."""


@dataclass(frozen=True)
class Request:
    path: str
    body: bytes
    connection: int
    """Which connection it came over, counted from 1."""


class Wire:
    """The connection that an answer is written to."""

    def __init__(self, connection: socket.socket, idle: threading.Event) -> None:
        self.connection = connection
        self.sent = 0
        self._idle = idle

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)
        self.sent += len(data)

    def endless(self, start: bytes, piece: bytes) -> None:
        """Send the same again and again, until the other side has enough of it."""
        self.connection.settimeout(SECONDS)
        self.send(start)
        for _ in range(max(MAX_BYTES // len(piece), 1)):
            self.send(piece)

    def is_left_idle(self) -> bool:
        """Wait until the other side asks for more over this connection, or closes it, or is known to want nothing."""
        self.connection.settimeout(0.01)
        while not self._idle.is_set():
            with contextlib.suppress(TimeoutError):
                self.connection.recv(1, socket.MSG_PEEK)
                return False
        return True

    def wait(self) -> None:
        """Wait until the other side closes."""
        self.connection.settimeout(SECONDS)
        with contextlib.suppress(OSError):
            while self.connection.recv(65536):
                pass


Answer = Callable[[Wire], None]
Script = Callable[[Request], Answer]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class HostileServer:
    """Serves each connection on a thread of its own."""

    port: int
    script: Script
    sent: list[tuple[Request, int]] = field(default_factory=list)
    """The bytes of each answer."""
    requests: list[Request] = field(default_factory=list)
    idle: threading.Event = field(default_factory=threading.Event)
    """Set once whoever asks has all answers, and asks for nothing: what comes then is nobody's."""

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for number in itertools.count(1):
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as reader:
            while line := reader.readline():
                path, length = line.split(b" ")[1].decode(), 0
                while line not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                    line = reader.readline()
                request = Request(path, reader.read(length), number)
                self.requests.append(request)
                wire = Wire(connection, self.idle)
                try:
                    self.script(request)(wire)
                finally:
                    self.sent.append((request, wire.sent))


@contextlib.contextmanager
def hostile_server(script: Script) -> Iterator[HostileServer]:
    with socket.create_server((LOOPBACK, 0), backlog=64) as listener:
        server = HostileServer(listener.getsockname()[1], script)
        threading.Thread(target=server.accept, args=(listener,), daemon=True).start()
        yield server
