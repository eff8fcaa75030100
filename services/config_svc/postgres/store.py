"""The store on PostgreSQL: SQLAlchemy Core, psycopg 3, reads in AUTOCOMMIT.

Every operation ends within the answer timeout, even if the server accepts connections but does not answer: the caller
gets `Unavailable`, and the abandoned work is cancelled and cleaned up in the background. A dead connection, as after a
restart of PostgreSQL, costs one retry on a new one, but never after a commit began.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

from psycopg import AsyncConnection as Driver
from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from config_svc.model.agent import AgentConfig, Revision
from config_svc.model.change import Change, FeedPosition
from config_svc.model.errors import AgentNotFound, RevisionNotFound
from config_svc.model.provider import GatewayProviders
from config_svc.model.query import After, AgentQuery
from config_svc.model.spec_json import decode_spec
from config_svc.model.template import Template
from config_svc.ports.store import Transaction
from config_svc.postgres.access import PostgresAccess
from config_svc.postgres.connections import connected, new_engine
from config_svc.postgres.records import encode_providers
from config_svc.postgres.statements import (
    agent_of,
    agents_page,
    gateway_of,
    live_agent,
    live_agent_at,
    live_providers,
    newest_templates,
    one_template,
    read_changes,
    read_position,
    revision_of,
    template_of,
)
from config_svc.postgres.tables import (
    agent_config_changes,
    agent_config_claims,
    agent_config_revisions,
    feed,
    gateway_providers,
    tool_server_claims,
)
from config_svc.postgres.tail import CANCEL_SECONDS, PEER, PostgresTail, answered, forget, listening, why
from config_svc.postgres.tool_servers import PostgresToolServers
from config_svc.postgres.transaction import PostgresTransaction
from servicekit.errors import Unavailable

T = TypeVar("T")

CHANNEL = "parley_config_changes"
KEY_CHANNEL = "parley_config_api_keys"
COMPACTION_BATCH = 10_000
FAILURE_SECONDS = 10.0
_NEVER = float("-inf"), ""
CLOSE_SECONDS = CANCEL_SECONDS + 2.0

_POOL_SECONDS = 2.0
_TAIL_SECONDS = 1.5


class PostgresStore(PostgresAccess, PostgresToolServers):
    """Implements `ports.store.Store`. `url` is SQLAlchemy's (`postgresql+psycopg://`); seconds everywhere.

    With `by_transaction` the URL leads to a pooler that gives a session to others between two transactions.
    Notifications need a session of their own: they come over `direct_url`; without one, changes are looked for instead.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 8,
        answer_seconds: float = 3.0,
        by_transaction: bool = False,
        direct_url: str | None = None,
    ) -> None:
        self._answer_seconds = answer_seconds
        pool = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": _POOL_SECONDS}
        self._engine = new_engine(url, answer_seconds, by_transaction=by_transaction, **pool)
        # A bound that ends with its transaction needs one.
        reading = {} if by_transaction else {"isolation_level": "AUTOCOMMIT"}
        self._reads = self._engine.execution_options(**reading)
        self._listens = direct_url is not None or not by_transaction
        self._tails = new_engine(
            direct_url or url,
            answer_seconds,
            by_transaction=not self._listens,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
        )
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._failed = _NEVER

    async def close(self) -> None:
        """Closes every connection; work that was abandoned is waited for, which ends within a bound."""
        deadline = asyncio.get_running_loop().time() + CLOSE_SECONDS
        while self._abandoned and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._abandoned, timeout=left)
        await self._engine.dispose()
        await self._tails.dispose()

    @property
    def connections_in_use(self) -> int:
        """How many of the pool's connections are in use."""
        pool: Any = self._engine.pool
        return int(pool.checkedout())

    @property
    def recent_failure(self) -> str:
        """Why the last call failed; empty if it did not, or longer than `FAILURE_SECONDS` ago."""
        time, reason = self._failed
        return reason if asyncio.get_running_loop().time() - time < FAILURE_SECONDS else ""

    async def agent(
        self, project: str, agent_id: str, *, revision: int | None = None, uid: str | None = None
    ) -> AgentConfig:
        statement = live_agent(project, agent_id)
        if revision is not None:
            statement = live_agent_at(project, agent_id, revision)
        row = next(iter(await self._rows(statement)), None)
        if row is None or (uid is not None and row.uid != uid.lower()):
            raise AgentNotFound(agent_id)
        if revision is None:
            return agent_of(row)
        if row.number is None:
            raise RevisionNotFound(agent_id, revision)
        return AgentConfig(
            row.project,
            row.id,
            row.uid,
            decode_spec(row.revision_spec),
            row.number,
            create_time=row.create_time,
            update_time=row.revision_time,
        )

    async def agents(self, query: AgentQuery, after: After | None, limit: int) -> Sequence[AgentConfig]:
        return [agent_of(row) for row in await self._rows(agents_page(query, after, limit))]

    async def revisions(self, uid: str, before: int | None, limit: int) -> Sequence[Revision]:
        revisions = agent_config_revisions
        statement = select(revisions).where(revisions.c.uid == uid).order_by(revisions.c.number.desc()).limit(limit)
        if before is not None:
            statement = statement.where(revisions.c.number < before)
        return [revision_of(row) for row in await self._rows(statement)]

    async def template(self, template_id: str, version: str) -> Template | None:
        rows = await self._rows(one_template(template_id, version))
        return template_of(rows[0]) if rows else None

    async def templates(self, after: str, limit: int) -> Sequence[Template]:
        return [template_of(row) for row in await self._rows(newest_templates(after, limit))]

    async def publish_providers(self, published: GatewayProviders) -> None:
        table = gateway_providers
        if not published.providers:
            await self._rows(delete(table).where(table.c.gateway == published.gateway).returning(table.c.gateway))
            return
        values = {"providers": encode_providers(published.providers), "expire_time": published.expire_time}
        statement = upsert(table).values(gateway=published.gateway, **values)
        statement = statement.on_conflict_do_update(index_elements=[table.c.gateway], set_=values)
        await self._rows(statement.returning(table.c.gateway))

    async def published_providers(self, now: datetime) -> Sequence[GatewayProviders]:
        return [gateway_of(row) for row in await self._rows(live_providers(now))]

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        async def once() -> T:
            async with connected(self._engine) as connection:
                result = await work(PostgresTransaction(connection))
                try:
                    await connection.commit()
                except DBAPIError as error:
                    # It is unknown whether it was committed, so a retry is not safe.
                    raise Unavailable(PEER, why=why(error.orig)) from error
                return result

        return await self._answered(_retried(once))

    async def feed_position(self) -> FeedPosition:
        return await self._reading(read_position)

    async def changes(self, after: int, limit: int) -> Sequence[Change]:
        return await self._reading(lambda connection: read_changes(connection, after, limit))

    def tail(self) -> AbstractAsyncContextManager[PostgresTail]:
        return self._listening(CHANNEL)

    def key_tail(self) -> AbstractAsyncContextManager[PostgresTail]:
        return self._listening(KEY_CHANNEL)

    @asynccontextmanager
    async def _listening(self, channel: str) -> AsyncIterator[PostgresTail]:
        async def listen() -> tuple[AsyncConnection, Driver[Any], bool]:
            connection = await self._tails.connect()
            try:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                listens = self._listens and await listening(driver, channel)
            except BaseException:  # such as a silent server: the connection is abandoned
                await connection.close()
                raise
            return connection, driver, listens

        def undo(opened: tuple[AsyncConnection, Driver[Any], bool]) -> None:
            self._leave(opened[0].close())

        connection, driver, listens = await answered(listen(), self._answer_seconds, self._abandoned, undo=undo)
        tail = PostgresTail(
            connection,
            driver,
            min(self._answer_seconds, _TAIL_SECONDS),
            channel=channel if self._listens else None,
            listens=listens,
        )
        try:
            yield tail
        finally:
            # Behind the caller's back: closing waits for what was abandoned, and a silent server makes that long.
            self._leave(self._close_tail(connection, tail))

    async def forget_claims(self, before: datetime) -> int:
        forgotten = 0
        for claims in (agent_config_claims, tool_server_claims):
            statement = delete(claims).where(claims.c.create_time < before)
            forgotten += len(await self._rows(statement.returning(claims.c.request_id)))
        return forgotten

    async def forget_providers(self, before: datetime) -> int:
        table = gateway_providers
        statement = delete(table).where(table.c.expire_time < before)
        return len(await self._rows(statement.returning(table.c.gateway)))

    async def compact(self, before: datetime, keep: int) -> int:
        async def once() -> int:
            async with connected(self._engine) as connection:
                gone = await _compact(connection, before, keep)
                await connection.commit()
                return gone

        return await self._answered(_retried(once))

    async def takes_writes(self) -> bool:
        """Returns whether the server is a primary, as far as the sessions of the pool know."""

        async def look() -> bool:
            async with connected(self._reads) as connection:
                asked = "SELECT current_setting('transaction_read_only') = 'off'"
                writes = bool((await connection.exec_driver_sql(asked)).scalar_one())
                await connection.commit()
                return writes

        # Not by `_answered`: it succeeds where what calls need is gone.
        return await answered(_retried(look), self._answer_seconds, self._abandoned)

    async def shares_sessions(self) -> bool:
        """Returns whether a session that is open here is shared with others, as by transaction poolers."""

        async def look() -> bool:
            async with connected(self._engine) as first:
                sessions = [await _session(first)]
                await first.commit()
                async with connected(self._tails) as second:
                    sessions.append(await _session(second))
            return sessions[0] == sessions[1]

        return await self._answered(_retried(look))

    async def run_sync(self, work: Callable[[Connection], T]) -> T:
        """Runs blocking `work` on one of the connections, without blocking."""
        return await self._reading(lambda connection: connection.run_sync(work))

    async def _rows(self, statement: Any) -> Sequence[Any]:
        async def run(connection: AsyncConnection) -> Sequence[Any]:
            return (await connection.execute(statement)).all()

        return await self._reading(run)

    async def _reading(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async def once() -> T:
            async with connected(self._reads) as connection:
                result = await work(connection)
                await connection.commit()  # in AUTOCOMMIT nothing is sent
                return result

        return await self._answered(_retried(once))

    async def _answered(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            result = await answered(work, self._answer_seconds, self._abandoned)
        except Unavailable as error:
            self._failed = asyncio.get_running_loop().time(), error.why
            raise
        self._failed = _NEVER
        return result

    async def _close_tail(self, connection: AsyncConnection, tail: PostgresTail) -> None:
        if tail.abandoned:
            await asyncio.wait(tail.abandoned)
        await connection.close()

    def _leave(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._abandoned.add(task)
        task.add_done_callback(lambda done: forget(done, self._abandoned))


async def _session(connection: AsyncConnection) -> int:
    return int((await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one())


async def _retried(once: Callable[[], Awaitable[T]]) -> T:
    try:
        return await once()
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return await once()


async def _compact(connection: AsyncConnection, before: datetime, keep: int) -> int:
    changes = agent_config_changes
    compacted = (await connection.execute(select(feed.c.compacted).with_for_update())).scalar_one()
    old = select(func.max(changes.c.sequence)).where(changes.c.time < before)
    surplus = select(changes.c.sequence).order_by(changes.c.sequence.desc()).offset(keep).limit(1)
    through = max(
        (await connection.execute(old)).scalar_one() or 0, (await connection.execute(surplus)).scalar_one_or_none() or 0
    )
    batch = select(changes.c.sequence).where(changes.c.sequence <= through).order_by(changes.c.sequence)
    gone = (
        (
            await connection.execute(
                delete(changes)
                .where(changes.c.sequence.in_(batch.limit(COMPACTION_BATCH)))
                .returning(changes.c.sequence)
            )
        )
        .scalars()
        .all()
    )
    if gone:
        await connection.execute(update(feed).values(compacted=max(compacted, *gone)))
    return len(gone)
