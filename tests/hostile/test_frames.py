"""HTTP/2 that no client library makes, on the gateway's gRPC port."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.hostile.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    SETTINGS,
    Connection,
    frame,
    head,
    literal,
)
from tests.servers.processes import ServiceProcess
from tests.servers.system import System

MB = 1024 * 1024
CHECK = b"/grpc.health.v1.Health/Check"
SECONDS = 2.0
CONNECTIONS = 16
INDEX = b"\xbe"
"""The newest header of the dynamic table."""


def endless_head(connection: Connection) -> None:
    connection.send(frame(HEADERS, 0, 1, head(CHECK)))
    piece = frame(CONTINUATION, 0, 1, literal(b"x-a", b"y" * 100) * 100)
    until(lambda: connection.send(piece * 10))


def pieces_of_nothing(connection: Connection) -> None:
    connection.send(frame(HEADERS, 0, 1, head(CHECK)))
    until(lambda: connection.send(frame(CONTINUATION, 0, 1) * 500))


def bombs(connection: Connection) -> None:
    connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head(CHECK, literal(b"x-a", b"v" * 3900, keep=True))))
    streams = iter(range(3, 2**20, 2))
    until(lambda: connection.send(frame(HEADERS, END_HEADERS | END_STREAM, next(streams), head(CHECK, INDEX * 12_000))))


def settings(connection: Connection) -> None:
    until(lambda: connection.send(frame(SETTINGS, 0, 0) * 500))


def paths_that_are_none(connection: Connection) -> None:
    streams = iter(range(1, 2**20, 2))
    until(lambda: connection.send(frame(HEADERS, END_HEADERS | END_STREAM, next(streams), head(b"/\xff\xfe"))))


def headers_that_are_none(connection: Connection) -> None:
    streams, header = iter(range(1, 2**20, 2)), literal(b"authorization", b"Bearer \xff\xfe")
    until(lambda: connection.send(frame(HEADERS, END_HEADERS | END_STREAM, next(streams), head(CHECK, header))))


def until(send: Callable[[], None]) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        send()


@contextlib.contextmanager
def memory_bounded(gateway: ServiceProcess, bytes_more: int) -> Iterator[None]:
    """Raises if the resident memory of `gateway` is ever more by `bytes_more` than at the start."""
    process, done = psutil.Process(gateway.pid), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:
        while not done.wait(0.02):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert max(seen) - seen[0] < bytes_more


def port_of(gateway: ServiceProcess) -> int:
    return int(gateway.grpc_target.rpartition(":")[2])


def attacked(port: int, attack: Callable[[Connection], None]) -> None:
    with Connection(port) as connection, contextlib.suppress(OSError):
        attack(connection)


def answers(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)


@pytest.mark.parametrize(
    "attack", [endless_head, pieces_of_nothing, bombs, settings, paths_that_are_none, headers_that_are_none]
)
def test_others_are_served_and_memory_is_bounded(attack: Callable[[Connection], None], parley_system: System) -> None:
    gateway = parley_system.gateways[0]
    with memory_bounded(gateway, 100 * MB):
        attacked(port_of(gateway), attack)
        answers(port_of(gateway))


def test_what_many_send_without_a_pause_is_not_read_at_once(parley_system: System) -> None:
    """One read took all that had come since the last that found nothing left: 900 MB."""
    gateway = parley_system.gateways[0]
    with memory_bounded(gateway, 60 * MB), ThreadPoolExecutor(CONNECTIONS) as attackers:
        for _ in range(CONNECTIONS):
            attackers.submit(attacked, port_of(gateway), endless_head)
    answers(port_of(gateway))
