"""What reads cost the database."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg as psycopg_dialect

from config_svc.agents.configs import AgentConfigs
from config_svc.metrics import Metrics
from config_svc.model.agent import AgentSpec, ModelConfig
from config_svc.model.audit import AuditQuery
from config_svc.model.query import After, AgentQuery, Order, OrderField
from config_svc.model.template import Template
from config_svc.postgres.access_statements import audit_page, key_with_hash
from config_svc.postgres.statements import agents_page
from config_svc.postgres.store import PostgresStore
from tests.servers.stores import libpq_url

P = "default"
SPEC = AgentSpec(model=ModelConfig("p", "m"))


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database_url)
    template = Template("assistant", "1.0.0", "", {"type": "object"}, datetime.now(UTC))
    await store.transact(lambda transaction: transaction.publish(template))
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


async def test_checking_a_key_is_one_statement_by_an_index(store: PostgresStore, database_url: str) -> None:
    hashes = [bytes([number]) * 32 for number in range(2)]
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin:
        await admin.execute(
            "INSERT INTO api_keys SELECT 'key_' || n, 'default', uid, sha256(n::text::bytea), '{chat}', '', '', 0, 0, "
            "now() FROM projects, generate_series(1, 20000) n"
        )
        await admin.execute(
            "INSERT INTO api_keys (SELECT 'key_x', project, project_uid, %s, scopes, user_id, "
            "display_name, 0, 0, now() FROM api_keys LIMIT 1)",
            [hashes[1]],
        )
        await admin.execute("VACUUM ANALYZE api_keys")
        with counted(store) as statements:
            found = await store.key_by_hash(hashes)
        assert found is not None
        assert (found[0].id, found[1], len(statements)) == ("key_x", hashes[1], 1)
        assert await scanned(admin, key_with_hash(hashes), "api_keys") <= 1


async def test_a_page_of_the_audit_log_reads_what_it_shows(store: PostgresStore, database_url: str) -> None:
    now = datetime.now(UTC)
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin:
        await admin.execute(
            "INSERT INTO audit_events (project, actor, action, resource, time, request_id, source, user_id, subjects) "
            "SELECT 'default', 'key_' || n %% 100, 'a.b', 'sessions/' || n %% 1000, %s - n * interval '1 s', '', '', "
            "'', '{}' FROM generate_series(1, 30000) n",
            [now],
        )
        await admin.execute("VACUUM ANALYZE audit_events")
        deep = (now - timedelta(seconds=15_000), 1)
        for query in (
            AuditQuery(P),
            AuditQuery(P, actor="key_7"),
            AuditQuery(P, resource="sessions/7"),
            AuditQuery(P, start=now - timedelta(seconds=20_000), end=now - timedelta(seconds=19_000)),
        ):
            for before in (None, deep):
                assert await scanned(admin, audit_page(query, before, 20), "audit_events") <= 21, (query, before)


async def scanned(admin: psycopg.AsyncConnection[Any], statement: Any, table: str) -> int:
    """How many rows of a table a statement touches, shown or filtered out."""
    compiled = statement.compile(dialect=psycopg_dialect(), compile_kwargs={"render_postcompile": True})  # type: ignore[no-untyped-call]
    cursor = await admin.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}".encode(), compiled.params)
    row = await cursor.fetchone()
    assert row is not None
    return rows_of(row[0][0]["Plan"], table)


def rows_of(plan: dict[str, Any], table: str) -> int:
    """Sums what the nodes of a plan read from a table."""
    own = 0
    if plan.get("Relation Name") == table and "Scan" in plan["Node Type"]:
        own = int((plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"])
    return own + sum(rows_of(inner, table) for inner in plan.get("Plans", []))


COUNT = 100_000
PAGE = 50


async def test_a_page_costs_the_same_wherever_in_the_list_it_is(database_url: str) -> None:
    """Of 100,000 agent configs no page, the first, one deep inside or the last, touches more than what it shows."""
    now = datetime.now(UTC)
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin:
        await admin.execute(
            "INSERT INTO agent_configs SELECT gen_random_uuid(), 'default', 'a' || lpad(n::text, 6, '0'), '{}', 1, "
            "%s + n * interval '1 ms', %s - n * interval '1 ms', NULL, NULL FROM generate_series(1, %s) n",
            (now, now, COUNT),
        )
        await admin.execute("VACUUM ANALYZE agent_configs")
        costs = {}
        for field, descending, show_deleted, place in product(
            OrderField, (False, True), (False, True), (0, COUNT // 2, COUNT - PAGE)
        ):
            query = AgentQuery(P, now, Order(field, descending), show_deleted)
            cost = await page_cost(admin, database_url, query, place, now)
            assert cost.rows <= PAGE + 1, (field, descending, show_deleted, place, cost)
            costs[field, descending, show_deleted, place] = cost.buffers
    # A page is its rows, wherever they lie in the table, and one way down an index.
    assert max(costs.values()) <= PAGE + 10, costs


@dataclass(frozen=True)
class Cost:
    """What a page cost: rows that the database looked at, and 8 KiB blocks that it touched."""

    rows: int
    buffers: int


async def page_cost(admin: Any, database_url: str, query: AgentQuery, place: int, now: datetime) -> Cost:
    """The cost of the page after `place` agent configs."""
    after = None
    if place:
        rising = query.order.field is not OrderField.UPDATE_TIME
        number = place if rising != query.order.descending else COUNT + 1 - place
        time = now + timedelta(milliseconds=number if rising else -number)
        value = f"a{number:06}" if query.order.field is OrderField.ID else time
        after = After(value, "ffffffff-ffff-ffff-ffff-ffffffffffff")
    store = PostgresStore(database_url)
    sql = agents_page(query, after, PAGE + 1).compile(store._engine.sync_engine, compile_kwargs={"literal_binds": True})
    await store.close()
    row = await (await admin.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}".encode())).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    assert int(plan["Actual Rows"]) > 0
    return Cost(rows_read(plan), plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def rows_read(node: dict[str, Any]) -> int:
    below = sum(rows_read(child) for child in node.get("Plans", ()))
    if below:
        return below
    return int(node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
