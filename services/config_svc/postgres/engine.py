"""SQLAlchemy Core without blocking: an engine and its connections on asyncio.

They are what `sqlalchemy.ext.asyncio` has for Core, and behave as those do. That package can't be imported without the
ORM, which nothing here uses and which takes 7 MB (SQLAlchemy's issue 12972 is to part the two). Both stand on the same:
the async dialect, its pool, and `greenlet_spawn`, under which blocking calls of SQLAlchemy wait for awaitables.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import sqlalchemy
from sqlalchemy import CursorResult, Executable, make_url
from sqlalchemy.util import greenlet_spawn

T = TypeVar("T")

_DRIVER = "postgresql+psycopg_async"


class AsyncConnection:
    """One connection that was lent; a transaction begins with the first statement, unless it is in AUTOCOMMIT."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection

    async def execute(
        self, statement: Executable, parameters: Sequence[dict[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """Runs a statement, once for each of `parameters` where they are given; its rows have all been read."""
        return await greenlet_spawn(self._connection.execute, statement, parameters)

    async def exec_driver_sql(self, sql: str) -> CursorResult[Any]:
        """Runs SQL as the driver takes it."""
        return await greenlet_spawn(self._connection.exec_driver_sql, sql)

    async def commit(self) -> None:
        """Commits what was begun."""
        await greenlet_spawn(self._connection.commit)

    async def run_sync(self, work: Callable[[sqlalchemy.Connection], T]) -> T:
        """Runs blocking `work` on the connection, without blocking."""
        return await greenlet_spawn(work, self._connection)

    @property
    def driver_connection(self) -> Any:
        """The driver's own connection."""
        return self._connection.connection.driver_connection

    async def close(self) -> None:
        """Gives the connection back; what was not committed is rolled back. Idempotent."""
        await greenlet_spawn(self._connection.close)


class AsyncEngine:
    """Lends connections. `url` is SQLAlchemy's for PostgreSQL; options are those of `sqlalchemy.create_engine`."""

    def __init__(self, url: str, **options: Any) -> None:
        self.sync_engine = sqlalchemy.create_engine(make_url(url).set(drivername=_DRIVER), **options)

    def in_autocommit(self) -> Self:
        """Returns the same engine, with the same pool, for statements that are each a transaction of their own."""
        other = object.__new__(type(self))
        other.sync_engine = self.sync_engine.execution_options(isolation_level="AUTOCOMMIT")
        return other

    async def open(self) -> AsyncConnection:
        """Returns a connection that the caller closes."""
        return AsyncConnection(await greenlet_spawn(self.sync_engine.connect))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """Lends a connection, which is given back whole before this is left, also by a caller that is cancelled."""
        connection = await self.open()
        try:
            yield connection
        finally:
            await _to_the_end(connection.close())

    async def dispose(self) -> None:
        """Closes the connections that are not lent."""
        await greenlet_spawn(self.sync_engine.dispose)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` whole; a cancellation meanwhile is raised after it."""
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.done():
                raise
            cancelled = error
    if cancelled is not None:
        raise cancelled
