"""Connections to PostgreSQL: how they are made, and how they end when nobody waits for them any more."""

import contextlib
import os
import socket
import struct
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from psycopg import AsyncConnection as Driver
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import Connection, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from config_svc.postgres.records import load_json

CONNECT_SECONDS = 2
KEEPALIVE_SECONDS = 10
"""After how much silence the system asks whether the other side of a connection is still there."""

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""What a connection may receive for a piece of work: no page that a call returns has as much."""

_RECEIVED_AT = 128
"""Where Linux' `tcp_info` has the count of bytes received."""

_FORMATS = {"DateStyle": "ISO", "bytea_output": "hex", "standard_conforming_strings": "on"}
"""What the driver reads, whatever a role or a database has as its default."""

_HELD: ContextVar["Held | None"] = ContextVar("held", default=None)


class Held:
    """The connections that a piece of work uses; those that are opened `with` it are among them."""

    def __init__(self, *drivers: Driver[Any]) -> None:
        self._drivers = {*drivers}
        self._received: dict[Driver[Any], int] = {}
        self._severed = False

    def __enter__(self) -> None:
        self._token = _HELD.set(self)

    def __exit__(self, *_: object) -> None:
        _HELD.reset(self._token)

    def add(self, driver: Driver[Any]) -> None:
        self._drivers.add(driver)
        if self._severed:
            _sever(driver)

    def remove(self, driver: Driver[Any]) -> None:
        self._drivers.discard(driver)

    def overrun(self, max_bytes: int) -> bool:
        """Returns whether a connection has received more than `max_bytes` since this was first asked of it."""
        received = {driver: _received(driver) for driver in self._drivers}
        self._received = received | self._received
        return any(count - self._received[driver] > max_bytes for driver, count in received.items())

    def sever(self) -> None:
        """Ends the connections, and those that are added later: what waits on one, its closing too, fails at once."""
        self._severed = True
        for driver in self._drivers:
            _sever(driver)


@asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yields one of the engine's connections; it is among those that are held until it is closed or in the pool."""
    held, driver = _HELD.get(), None
    try:
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            if held is not None and driver is not None:
                held.add(driver)
            yield connection
    finally:
        if held is not None and driver is not None:
            held.remove(driver)


def new_engine(url: str, answer_seconds: float, *, by_transaction: bool, **options: Any) -> AsyncEngine:
    """Returns an engine whose statements end after `answer_seconds`, on the server too.

    With `by_transaction`, nothing is used that outlives a transaction.
    """
    given = make_url(url).query
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "config_svc",
        "client_encoding": "UTF8",
        # A cut wire is found out by the system: a connection that is idle costs no call its time.
        "keepalives_idle": KEEPALIVE_SECONDS,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    }
    engine = create_async_engine(
        url,
        json_deserializer=load_json,
        connect_args={name: value for name, value in arguments.items() if name not in given}
        | ({"prepare_threshold": None} if by_transaction else {})
        | {"async_creator_fn": _opened},
        **options,
    )

    # By statement and not by `options`: poolers refuse, or drop, that parameter.
    bounds = dict.fromkeys(("statement_timeout", "idle_in_transaction_session_timeout"), int(answer_seconds * 1000))
    values: dict[str, int | str] = {**bounds, **_FORMATS}

    def bound_session(connection: Any, _: object) -> None:
        autocommit, connection.autocommit = connection.autocommit, True
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute("; ".join(f"SET {name} = {value}" for name, value in values.items()))
        connection.autocommit = autocommit

    def bound_transaction(connection: Connection) -> None:
        connection.exec_driver_sql("; ".join(f"SET LOCAL {name} = {value}" for name, value in values.items()))

    if not by_transaction:
        event.listen(engine.sync_engine, "connect", bound_session)
    elif options.get("isolation_level") != "AUTOCOMMIT":
        event.listen(engine.sync_engine, "begin", bound_transaction)

    @event.listens_for(engine.sync_engine, "handle_error")
    def give_up_readers(context: ExceptionContext) -> None:
        # A server that takes no writes may have been the primary until now. Its sessions stay as they are, also when it
        # is writable again, so the connection goes, and with it those of the pool that were made before.
        if isinstance(context.original_exception, ReadOnlySqlTransaction):
            context.is_disconnect = True

    return engine


async def _opened(*arguments: Any, **options: Any) -> Driver[Any]:
    try:
        driver: Driver[Any] = await Driver.connect(*arguments, **options)
    except BaseException as error:
        # The socket is a variable of a frame that the error refers to in a cycle: it would stay until a collection.
        traceback.clear_frames(error.__traceback__)
        raise
    held = _HELD.get()
    if held is not None:
        held.add(driver)  # until it is configured, nobody else knows of it
    return driver


def _sever(driver: Driver[Any]) -> None:
    if driver.closed:
        return
    # Not closed, for the driver waits for it to be readable, which the end of the stream is.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(driver.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def _received(driver: Driver[Any]) -> int:
    """Returns how many bytes have arrived; 0 where that is not known (closed, a socket of the file system)."""
    with contextlib.suppress(OSError, AttributeError, struct.error):
        if not driver.closed:
            with socket.socket(fileno=os.dup(driver.fileno())) as wire:
                known = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + 8)
                return int(struct.unpack_from("=Q", known, _RECEIVED_AT)[0])
    return 0
