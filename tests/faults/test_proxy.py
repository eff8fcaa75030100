"""The fault proxy does what it is told: otherwise every test that stands on it proves nothing."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import FaultProxy, Proxies

BOUND = 30.0


@pytest.fixture
def echo_server() -> Iterator[str]:
    """A server that sends back what it gets, in upper case."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve_one(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data.upper())
            except OSError:
                return

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve_one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(BOUND)


@pytest.fixture
def proxy(echo_server: str) -> Iterator[FaultProxy]:
    with Proxies() as proxies:
        yield proxies.to("echo", echo_server)


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=BOUND)


def said(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(65536)


def test_it_forwards_and_lets_the_end_through(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        assert said(connection, b"hello") == b"HELLO"
        assert proxy.connections == 1
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(10) == b""


def test_latency_holds_back_every_chunk(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        assert said(connection, b"a") == b"A"
        proxy.delay(0.2)
        began = time.monotonic()
        assert said(connection, b"b") == b"B"
        assert time.monotonic() - began >= 0.4


def test_a_blackhole_keeps_the_connection_and_delivers_when_it_is_healed(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        assert said(connection, b"a") == b"A"
        proxy.blackhole()
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            said(connection, b"b")
        connection.settimeout(BOUND)
        proxy.heal()
        assert connection.recv(10) == b"B"


def test_a_reset_breaks_connections_and_new_ones_work(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        assert said(connection, b"a") == b"A"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(10)
    with connect(proxy) as connection:
        assert said(connection, b"a") == b"A"


def test_a_refusing_proxy_lets_nobody_in_until_it_is_healed(proxy: FaultProxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.heal()
    with connect(proxy) as connection:
        assert said(connection, b"a") == b"A"


def test_a_cut_breaks_half_way_through_a_reply(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        assert said(connection, b"a") == b"A"
        proxy.cut()
        assert said(connection, b"abcdef") == b"ABC"
        with pytest.raises(ConnectionResetError):
            connection.recv(10)


def test_a_lost_reply_lets_the_request_through(proxy: FaultProxy) -> None:
    proxy.lose_reply(b"commit", linger=0.1)
    with connect(proxy) as connection:
        assert said(connection, b"begin") == b"BEGIN"
        connection.sendall(b"com")
        connection.recv(10)
        connection.sendall(b"mit")
        with pytest.raises(ConnectionResetError):
            connection.recv(10)
    assert proxy.lost_replies == 1
    with connect(proxy) as connection:
        assert said(connection, b"commit") == b"COMMIT"
