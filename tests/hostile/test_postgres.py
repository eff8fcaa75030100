"""A server that answers config_svc as no PostgreSQL does."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import pytest

from config_svc.postgres.connections import connected
from config_svc.postgres.store import PostgresStore
from config_svc.postgres.tail import answered
from servicekit.errors import Unavailable
from tests.hostile.postgres_answers import LOGINS, STATEMENTS, HostilePostgres
from tests.servers.databases import migrated_database
from tests.servers.stores import PostgresServer

AT_ONCE = 6


@pytest.fixture(scope="module")
def migrated_url(postgres_server: PostgresServer) -> Iterator[str]:
    with migrated_database(postgres_server) as url:
        yield url


async def test_answers_that_no_postgresql_gives_are_unavailable_and_leave_nothing(migrated_url: str) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def attacked(attack: str) -> None:
        async with turns:
            server = HostilePostgres(migrated_url)
            url = await server.start()
            store = PostgresStore(url, answer_seconds=20, pool_size=1)
            await _until_it_answers(partial(store.templates, "", 1))
            hasty = PostgresStore(url, answer_seconds=1, pool_size=1)
            async with store.tail() as tail:
                await _until_it_answers(tail.position)
                server.attack = attack
                if attack in STATEMENTS:
                    for call in (hasty.templates("", 1), hasty.takes_writes()):
                        with pytest.raises(Unavailable):
                            await call
                    tail._answer_seconds = 1
                    with pytest.raises(Unavailable):
                        await tail.changes(0, 1)
                else:
                    with pytest.raises(Unavailable):
                        await hasty.templates("", 1)
                server.attack = ""
            async with asyncio.timeout(60):
                await _until_it_answers(partial(hasty.templates, "", 1))
            await asyncio.gather(store.close(), hasty.close())
            async with asyncio.timeout(60):
                while server.connections:
                    await asyncio.sleep(0.05)
            await server.close()

    async with asyncio.TaskGroup() as tasks:
        for attack in (*STATEMENTS, *LOGINS):
            tasks.create_task(attacked(attack), name=attack)


async def _until_it_answers(ask: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await ask()
            return
        except Unavailable:
            await asyncio.sleep(0.1)


async def test_rows_without_an_end_are_cut_off(migrated_url: str) -> None:
    store = PostgresStore(migrated_url, answer_seconds=60)

    async def read() -> int:
        async with connected(store._engine) as connection:
            asked = "SELECT repeat('x', 100000), pg_sleep(0.01) FROM generate_series(1, 5000)"
            return len((await connection.exec_driver_sql(asked)).all())

    with pytest.raises(Unavailable) as caught:
        await answered(read(), 50, set(), max_bytes=1024 * 1024)
    assert "no answer within" not in caught.value.why
    assert await store.templates("", 1) == []
    await store.close()
