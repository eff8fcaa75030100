"""A connection that follows what is committed, and the bound on every wait for PostgreSQL."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection as Driver
from sqlalchemy import CursorResult, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from config_svc.model.change import Change, FeedPosition
from config_svc.ports.access import KeyChange
from config_svc.postgres.access_statements import change_of_row, key_changes_after, newest_key_change, projects_with
from config_svc.postgres.statements import read_changes, read_position
from servicekit.errors import Unavailable

T = TypeVar("T")

PEER = "postgresql"

_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)

log = structlog.get_logger("config_svc.postgres")


class PostgresTail:
    """Implements `config_svc.ports.store.Tail` and `config_svc.ports.access.KeyTail` on a connection that listens."""

    def __init__(self, connection: AsyncConnection, driver: Driver[Any], answer_seconds: float) -> None:
        self._connection = connection
        self._driver = driver
        self._answer_seconds = answer_seconds
        self.abandoned: set[asyncio.Task[Any]] = set()

    async def position(self) -> FeedPosition:
        return await answered(read_position(self._connection), self._answer_seconds, self.abandoned)

    async def changes(self, after: int, limit: int) -> Sequence[Change]:
        return await answered(read_changes(self._connection, after, limit), self._answer_seconds, self.abandoned)

    async def missing_projects(self, uids: Sequence[str]) -> Sequence[str]:
        there = {str(row.uid) for row in await self._run(projects_with(uids))}
        return [uid for uid in uids if uid not in there]

    async def newest(self) -> int:
        return int((await self._run(newest_key_change())).scalar_one())

    async def key_changes(self, after: int, limit: int) -> Sequence[KeyChange]:
        return [change_of_row(row) for row in await self._run(key_changes_after(after, limit))]

    async def wait(self, timeout: float) -> None:
        try:
            async for _ in self._driver.notifies(timeout=timeout, stop_after=1):
                pass
        except _AWAY as error:
            raise Unavailable(PEER) from error

    async def _run(self, statement: Select[Any]) -> CursorResult[Any]:
        return await answered(self._connection.execute(statement), self._answer_seconds, self.abandoned)


async def answered(work: Coroutine[Any, Any, T], seconds: float, abandoned: set[asyncio.Task[Any]]) -> T:
    """Returns what `work` does; raises Unavailable when the database is away or has not answered after `seconds`.

    `work` that is left behind, also by a caller that is cancelled, is cancelled and stands in `abandoned` to its end.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            abandoned.add(task)
            task.add_done_callback(lambda late: forget(late, abandoned))
    if not done:
        raise Unavailable(PEER)
    try:
        return task.result()
    except DBAPIError as error:
        if not error.connection_invalidated and not isinstance(error.orig, _AWAY):
            raise
        log.warning("database failed", error=type(error.orig).__name__, sqlstate=getattr(error.orig, "sqlstate", None))
        raise Unavailable(PEER) from error
    except (*_AWAY, PoolTimeout, OSError) as error:
        log.warning("database is away", error=type(error).__name__)
        raise Unavailable(PEER) from error


def forget(task: asyncio.Task[Any], abandoned: set[asyncio.Task[Any]]) -> None:
    """Takes note of the end of work that nobody waits for any more."""
    abandoned.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.debug("abandoned work failed", error=type(task.exception()).__name__)
