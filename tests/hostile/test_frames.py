"""HTTP/2 that no client library makes, on the gateway's gRPC port."""

import contextlib
import time

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
from tests.servers.system import System

MB = 1024 * 1024
CHECK = b"/grpc.health.v1.Health/Check"
SECONDS = 2.0
INDEX = b"\xbe"
"""The newest header of the dynamic table."""


def endless_head(connection: Connection) -> None:
    connection.send(frame(HEADERS, 0, 1, head(CHECK)))
    piece = literal(b"x-a", b"y" * 100) * 100
    until(lambda: connection.send(frame(CONTINUATION, 0, 1, piece)))


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


def until(send: object) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        send()  # type: ignore[operator]


@pytest.mark.parametrize(
    "attack", [endless_head, pieces_of_nothing, bombs, settings, paths_that_are_none, headers_that_are_none]
)
def test_others_are_served_and_memory_is_bounded(attack: object, parley_system: System) -> None:
    gateway = parley_system.gateways[0]
    process, port = psutil.Process(gateway.pid), int(gateway.grpc_target.rpartition(":")[2])
    before = process.memory_info().rss
    with Connection(port) as connection, contextlib.suppress(OSError):
        attack(connection)  # type: ignore[operator]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert process.memory_info().rss - before < 100 * MB
