"""What reads cost the database."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import event

from config_svc.agents import AgentConfigs
from config_svc.metrics import Metrics
from config_svc.model.agent import AgentSpec, ModelConfig
from config_svc.model.query import After, AgentQuery, Order, OrderField
from config_svc.model.template import Template
from config_svc.postgres_store import PostgresStore
from config_svc.statements import agents_page
from tests.servers.stores import libpq_url

P = "default"
SPEC = AgentSpec(model=ModelConfig("p", "m"))


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database_url)
    template = Template("assistant", "1.0.0", "", {"type": "object"}, datetime.now(UTC))
    await store.transact(lambda writing: writing.publish(template))
    yield store
    await store.close()


@pytest.fixture
def agents(store: PostgresStore) -> AgentConfigs:
    metrics = Metrics(CollectorRegistry())
    return AgentConfigs(store, clock=lambda: datetime.now(UTC), retention=timedelta(days=1), metrics=metrics)


@contextmanager
def counted(store: PostgresStore) -> Iterator[list[str]]:
    """Collects the statements that are sent in the block."""
    statements: list[str] = []

    def collect(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    engine = store._engine.sync_engine
    event.listen(engine, "before_cursor_execute", collect)
    yield statements
    event.remove(engine, "before_cursor_execute", collect)


async def test_reading_an_agent_config_is_one_statement(agents: AgentConfigs, store: PostgresStore) -> None:
    created = await agents.create(P, "a", SPEC)
    for arguments in ({}, {"revision": 1}, {"uid": created.uid}, {"revision": 1, "uid": created.uid}):
        with counted(store) as statements:
            await agents.get(P, "a", **arguments)
        assert len(statements) == 1


@pytest.mark.parametrize("order", [Order(field, down) for field in OrderField for down in (False, True)], ids=str)
@pytest.mark.parametrize("show_deleted", [False, True])
async def test_a_page_is_found_by_an_index(database_url: str, order: Order, show_deleted: bool) -> None:
    """Of 20,000 agent configs a page deep inside touches no more than about what it shows."""
    now = datetime.now(UTC)
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin:
        await admin.execute(
            "INSERT INTO agent_configs SELECT gen_random_uuid(), 'default', 'a' || n, '{}', 1, "
            "now() + n * interval '1 ms', now() - n * interval '1 ms', NULL, NULL FROM generate_series(1, 20000) n"
        )
        await admin.execute("ANALYZE agent_configs")
        value = "a5" if order.field is OrderField.ID else now
        query = AgentQuery(P, now, order, show_deleted)
        statement = agents_page(query, After(value, "00000000-0000-0000-0000-000000000000"), 50)
        store = PostgresStore(database_url)
        sql = statement.compile(store._engine.sync_engine, compile_kwargs={"literal_binds": True})
        await store.close()
        plan = await (await admin.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}".encode())).fetchone()
    assert plan is not None
    assert rows_read(plan[0][0]["Plan"]) <= 200


def rows_read(node: dict[str, Any]) -> int:
    below = sum(rows_read(child) for child in node.get("Plans", ()))
    if below:
        return below
    return int(node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
