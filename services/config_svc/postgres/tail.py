"""A connection that follows commits, and the timeout of every wait for PostgreSQL."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection as Driver
from psycopg import Notify, sql
from sqlalchemy import CursorResult, Select, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from config_svc.model.change import Change, FeedPosition
from config_svc.ports.access import KeyChange
from config_svc.postgres.access_statements import change_of_row, key_changes_after, newest_key_change, projects_with
from config_svc.postgres.connections import MAX_ANSWER_BYTES, Held
from config_svc.postgres.statements import read_changes, read_position
from config_svc.postgres.tables import agent_config_changes, api_key_changes
from servicekit.errors import Unavailable

T = TypeVar("T")

PEER = "postgresql"

_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,  # data or an index is damaged, or the server ended a transaction that it found too slow
    psycopg.errors.ReadOnlySqlTransaction,
    # A right was revoked, or the schema is not what it was at the start: whoever did that can undo it.
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedObject,
    psycopg.errors.SystemError,
    psycopg.errors.UntranslatableCharacter,  # the database's encoding is not UTF8
)

POLL_SECONDS = 0.1
"""Between two looks for changes where no notification can come: within the 250 ms in which gateways learn of them."""
POLLS_BETWEEN_TRIES = 10

CANCEL_SECONDS = 1.0
"""How long the server may take to cancel what nobody waits for any more."""

WATCH_SECONDS = 0.1
"""Between two looks at how much has arrived; most work ends before the first."""

MAX_WHY = 300
_SECRET = re.compile(r"(password['\"]?\s*[=:]\s*['\"]?|://[^\s:/@]*:)[^\s@'\"]+", re.IGNORECASE)

_LOOKS = {
    outbox.name: f"SELECT 1 FROM {outbox.name} WHERE sequence > %s LIMIT 1".encode()
    for outbox in (agent_config_changes, api_key_changes)
}

log = structlog.get_logger("config_svc.postgres")


class PostgresTail:
    """Implements `config_svc.ports.store.Tail` and `config_svc.ports.access.KeyTail` on a connection that listens.

    Where it does not, it looks for changes every `POLL_SECONDS` instead, and tries to listen to `channel` meanwhile: a
    standby lets nobody listen until it is promoted. Without a channel it does not try.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        driver: Driver[Any],
        answer_seconds: float,
        *,
        channel: str | None,
        listens: bool,
    ) -> None:
        self._channel = channel
        self._listens = listens
        self._polls = 0
        self._connection = connection
        self._driver = driver
        self._answer_seconds = answer_seconds
        self.abandoned: set[asyncio.Task[Any]] = set()
        self._notified = False
        driver.add_notify_handler(self._note)

    async def position(self) -> FeedPosition:
        return await self._answered(read_position(self._connection))

    async def changes(self, after: int, limit: int) -> Sequence[Change]:
        if not await self._any_over(agent_config_changes, after):
            return []
        return await self._answered(read_changes(self._connection, after, limit))

    async def missing_projects(self, uids: Sequence[str]) -> Sequence[str]:
        there = {str(row.uid) for row in await self._run(projects_with(uids))}
        return [uid for uid in uids if uid not in there]

    async def newest(self) -> int:
        return int((await self._run(newest_key_change())).scalar_one())

    async def key_changes(self, after: int, limit: int) -> Sequence[KeyChange]:
        if not await self._any_over(api_key_changes, after):
            return []
        return [change_of_row(row) for row in await self._run(key_changes_after(after, limit))]

    async def wait(self, timeout: float) -> None:
        if not self._listens:
            await self._poll(timeout)
            return
        # The next statement takes in what can be read. A notification that came beside its answer is seen here: the
        # answer may be older than that.
        if not self._notified:
            try:
                await _readable(self._driver.fileno(), timeout)
            except _UNAVAILABLE as error:
                raise Unavailable(PEER, why=why(error)) from error
        self._notified = False

    async def _poll(self, timeout: float) -> None:
        await asyncio.sleep(min(timeout, POLL_SECONDS))
        self._polls += 1
        if self._channel is not None and self._polls % POLLS_BETWEEN_TRIES == 0:
            trying = listening(self._driver, self._channel)
            self._listens = await self._answered(trying)

    async def _answered(self, work: Coroutine[Any, Any, T]) -> T:
        return await answered(work, self._answer_seconds, self.abandoned, held=Held(self._driver))

    def _note(self, _: Notify) -> None:
        self._notified = True

    async def _any_over(self, outbox: Table, sequence: int) -> bool:
        """Looks whether there are newer changes. It is what an idle process does all the time.

        On the driver itself it takes a fifth of what SQLAlchemy takes for the statement that reads them.
        """
        statement = _LOOKS[outbox.name]

        async def look() -> bool:
            return await (await self._driver.execute(statement, (sequence,))).fetchone() is not None

        return await self._answered(look())

    async def _run(self, statement: Select[Any]) -> CursorResult[Any]:
        return await self._answered(self._connection.execute(statement))


async def listening(driver: Driver[Any], channel: str) -> bool:
    """Has an autocommitting connection listen; returns whether the server lets it, which a standby does not."""
    try:
        await driver.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    except psycopg.errors.ReadOnlySqlTransaction:
        return False
    return True


async def _readable(descriptor: int, timeout: float) -> None:
    """Returns when there is something to read, at the latest after `timeout` seconds.

    The driver's `notifies` does so too, but wakes ten times a second meanwhile.
    """
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    timer = loop.call_later(timeout, _resolve, readable)
    loop.add_reader(descriptor, _resolve, readable)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)
        timer.cancel()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def answered(
    work: Coroutine[Any, Any, T],
    seconds: float,
    abandoned: set[asyncio.Task[Any]],
    *,
    held: Held | None = None,
    undo: Callable[[T], None] | None = None,
    max_bytes: int = MAX_ANSWER_BYTES,
) -> T:
    """Returns what `work` does; raises Unavailable when the database is, or has not answered after `seconds`.

    A connection that receives more than `max_bytes` meanwhile is severed.

    `work` that is left behind, also by a caller that is cancelled, is cancelled and kept in `abandoned` until it ends.
    That takes `CANCEL_SECONDS`: then its connections (`held`, and those that it opens) are severed. What it returns
    without anybody to take it is given to `undo`.
    """
    loop = asyncio.get_running_loop()
    held = held or Held()
    with held:
        task = loop.create_task(work)
    over = loop.create_future()
    task.add_done_callback(lambda _: _resolve(over))
    timer = loop.call_later(seconds, _resolve, over)
    watch = _Watch(held, max_bytes)
    try:
        await over
    except asyncio.CancelledError:
        _abandon(task, abandoned, held, undo)
        raise
    finally:
        timer.cancel()
        watch.stop()
    if not task.done():
        _abandon(task, abandoned, held, undo)
        log.warning("database_timeout", seconds=seconds)
        raise Unavailable(PEER, why=f"no answer within {seconds:g} s")
    try:
        return task.result()
    except DBAPIError as error:
        if not error.connection_invalidated and not _is_outage(error.orig):
            raise
        state = getattr(error.orig, "sqlstate", None)
        log.warning("database_error", error=type(error.orig).__name__, sqlstate=state, why=why(error.orig))
        raise Unavailable(PEER, why=why(error.orig)) from error
    except (psycopg.Error, PoolTimeout, OSError) as error:
        if isinstance(error, psycopg.Error) and not _is_outage(error):
            raise
        log.warning("database_unavailable", error=type(error).__name__, why=why(error))
        raise Unavailable(PEER, why=why(error)) from error


def _is_outage(error: object) -> bool:
    # libpq's own error, of an answer that no server sends, has neither a class nor a state.
    return isinstance(error, _UNAVAILABLE) or (type(error) is psycopg.DatabaseError and error.sqlstate is None)


class _Watch:
    """Severs the connections of a piece of work once one has received more than `max_bytes`."""

    def __init__(self, held: Held, max_bytes: int) -> None:
        self._held = held
        self._max_bytes = max_bytes
        self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._look)

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._held.overrun(self._max_bytes):
            log.warning("database_answer_too_large", max_bytes=self._max_bytes)
            self._held.sever()
        else:
            self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._look)


def _abandon(
    task: asyncio.Task[T], abandoned: set[asyncio.Task[Any]], held: Held, undo: Callable[[T], None] | None
) -> None:
    def sever() -> None:
        held.sever()
        task.cancel()  # it may be asking the server to cancel a statement

    def end(_: asyncio.Task[T]) -> None:
        timer.cancel()
        if undo is not None and not task.cancelled() and task.exception() is None:
            undo(task.result())
        forget(task, abandoned)

    task.cancel()
    abandoned.add(task)
    timer = asyncio.get_running_loop().call_later(CANCEL_SECONDS, sever)
    task.add_done_callback(end)


def why(error: BaseException | None) -> str:
    """Returns the first line of what libpq or the server says, bounded, without a password that it may quote.

    It names the host, the user and the database; lines behind it may hold what was written.
    """
    line = str(error).strip().partition("\n")[0]
    return _SECRET.sub(r"\1***", line)[:MAX_WHY]


def forget(task: asyncio.Task[Any], abandoned: set[asyncio.Task[Any]]) -> None:
    """Ends the record of work that is no longer waited for."""
    abandoned.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.debug("abandoned_work_failed", error=type(task.exception()).__name__)
