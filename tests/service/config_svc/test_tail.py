"""The connection that follows what is committed: what wakes it, and what it costs while nothing happens."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from config_svc.postgres.store import CHANNEL, PostgresStore
from config_svc.postgres.tail import PostgresTail
from servicekit.errors import Unavailable
from tests.servers.stores import libpq_url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore(database_url)
    yield opened
    await opened.close()


async def execute(database_url: str, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as connection:
        await connection.execute(statement.encode())


async def own_pid(tail: PostgresTail) -> int:
    return int((await tail._connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one())


async def test_a_notification_wakes_it(store: PostgresStore, database_url: str) -> None:
    async with store.tail() as tail, asyncio.timeout(60):
        for _ in range(3):
            waiting = asyncio.create_task(tail.wait(600))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            await execute(database_url, f"NOTIFY {CHANNEL}")
            await waiting
            assert await tail.changes(0, 10) == []
            await tail.wait(0.01)  # the statement took it in: one more look, and it is quiet again


async def test_a_notification_beside_an_answer_wakes_it_too(store: PostgresStore) -> None:
    """The change that it is for may have been committed after the answer was made."""
    async with store.tail() as tail, asyncio.timeout(60):
        await tail._connection.exec_driver_sql(f"NOTIFY {CHANNEL}")
        await tail.wait(600)


async def test_it_returns_without_a_notification(store: PostgresStore) -> None:
    async with store.tail() as tail, asyncio.timeout(60):
        await tail.wait(0.01)


async def test_the_end_of_its_connection_wakes_it(store: PostgresStore, database_url: str) -> None:
    async with store.tail() as tail, asyncio.timeout(60):
        pid = await own_pid(tail)
        waiting = asyncio.create_task(tail.wait(600))
        await asyncio.sleep(0.02)
        await execute(database_url, f"SELECT pg_terminate_backend({pid})")
        await waiting
        with pytest.raises(Unavailable):
            await tail.changes(0, 10)
