"""`python -m config_svc migrate`, and what a server makes of a schema that is not its own."""

import asyncio
import importlib
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import psycopg
import pytest
from alembic import command as alembic_command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, make_url

from config_svc.postgres.migrate import main, migrate
from config_svc.postgres.schema_version import VERSION_TABLE, known_versions, newest_version
from config_svc.postgres.tables import metadata
from servicekit.errors import StartupError
from tests.servers.processes import clean_environment
from tests.servers.stores import libpq_url
from tests.service.config_svc.conftest import running


def command(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "config_svc", *arguments],
        env=clean_environment({"PARLEY_CONFIG_DATABASE_URL": url, "PARLEY_CONFIG_GRPC_PORT": "0"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_migrates_once(postgres_url: str) -> None:
    refused = command(postgres_url)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "run `python -m config_svc migrate`" in refused.stderr
    first = command(postgres_url, "migrate", "--wait", "60")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == f"schema migrated from nothing to {newest_version()}\n"
    second = command(postgres_url, "migrate")
    assert (second.returncode, second.stdout) == (0, f"schema is at {newest_version()}\n")


def test_concurrent_migrations_take_turns(postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: migrate(postgres_url), range(4)))
    assert sorted(before or "" for before, _ in outcomes) == ["", *[newest_version()] * 3]


def test_a_migration_waits_no_longer_than_asked(postgres_url: str) -> None:
    with psycopg.connect(libpq_url(postgres_url), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('parley/config/migrate', 0))")
        with pytest.raises(StartupError, match="another migration"):
            migrate(postgres_url, wait=0.5)
        release = threading.Timer(0.5, other.execute, ["SELECT pg_advisory_unlock_all()"])
        release.start()
        assert migrate(postgres_url, wait=60)[1] == newest_version()
        release.join()


def test_a_migration_that_is_ended_half_way_leaves_nothing(postgres_url: str) -> None:
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with (
        psycopg.connect(libpq_url(postgres_url)) as other,
        psycopg.connect(libpq_url(postgres_url), autocommit=True) as admin,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("CREATE TABLE projects ()")  # what a migration in the middle makes, not committed
        migration = pool.submit(migrate, postgres_url, 60)
        deadline = time.monotonic() + 60
        while (found := admin.execute(waiting).fetchone()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        admin.execute("SELECT pg_terminate_backend(%s)", found)
        with pytest.raises(StartupError, match="the migration failed: "):
            migration.result()
        other.rollback()
        assert admin.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        assert migrate(postgres_url) == (None, newest_version())


def test_an_unavailable_database_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_CONFIG_DATABASE_URL", "postgresql://nobody:secret@127.0.0.1:1/parley")
    with pytest.raises(SystemExit, match=r"^config_svc migrate: the database does not answer: .*") as caught:
        main(["--wait", "0.3"])
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("arguments", [["--wait"], ["--wait", "x"], ["--wait", "-1"], ["now"], ["--wait", "1", "2"]])
def test_other_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="usage"):
        main(arguments)


async def test_a_newer_schema_is_served_and_not_migrated(database_url: str) -> None:
    """The release before goes on running while a newer one has expanded the schema."""
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin:
        await admin.execute("UPDATE config_schema_version SET version_num = '9999'")
    async with running(database_url) as service:
        assert service.port
    with pytest.raises(StartupError, match="newer than this release"):
        await asyncio.to_thread(migrate, database_url)


async def test_a_newer_schema_that_has_taken_something_away_is_refused(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin:
        await admin.execute("UPDATE config_schema_version SET version_num = '9999'")
        await admin.execute(f"COMMENT ON TABLE config_schema_version IS 'serves {newest_version()}'".encode())
        async with running(database_url) as service:
            assert service.port
        await admin.execute("COMMENT ON TABLE config_schema_version IS 'serves 9998'")
    with pytest.raises(StartupError, match=r"is at 9999 and serves releases for 9998 and later"):
        async with running(database_url):
            pass


async def test_an_empty_version_table_is_no_schema(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(libpq_url(database_url), autocommit=True) as admin:
        await admin.execute("DELETE FROM config_schema_version")
    with pytest.raises(StartupError, match="schema is at nothing"):
        async with running(database_url):
            pass


def test_the_versions_are_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", "config_svc:postgres/migrations")
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_current_head() == newest_version()
    assert sorted(script.revision for script in scripts.walk_revisions()) == list(known_versions())


TAKES_AWAY = re.compile(
    r"^\s*(DROP|TRUNCATE|DELETE)\b|^\s*ALTER\b.*\b(DROP|RENAME|TYPE|SET NOT NULL)\b"
    r"|^\s*ALTER\b.*\bADD COLUMN\b(?!.*\bDEFAULT\b).*\bNOT NULL\b",
    re.IGNORECASE | re.DOTALL,
)


def takes_away(sql: str) -> bool:
    """Whether a statement takes away what the release before may need; what a function does comes later."""
    outside = re.sub(r"\$\$.*?\$\$", "", sql, flags=re.DOTALL)
    return any(TAKES_AWAY.search(statement) for statement in outside.split(";"))


@pytest.mark.parametrize(
    ("statement", "takes"),
    [
        ("ALTER TABLE a ADD COLUMN b jsonb; CREATE TABLE c (d int NOT NULL)", False),
        ("ALTER TABLE a ADD COLUMN b int NOT NULL DEFAULT 0", False),
        ("ALTER TABLE a ADD COLUMN b int NOT NULL", True),
        ("ALTER TABLE a DROP COLUMN b", True),
        ("ALTER TABLE a RENAME TO b", True),
        ("CREATE TABLE a (b int); DROP TABLE c", True),
        ("CREATE TRIGGER a BEFORE DELETE OR TRUNCATE ON b EXECUTE FUNCTION c()", False),
        ("ALTER TABLE a ALTER COLUMN b TYPE text", True),
        ("ALTER TABLE a ALTER COLUMN b SET NOT NULL", True),
    ],
)
def test_what_takes_something_away_is_known(statement: str, takes: bool) -> None:
    assert takes_away(statement) == takes


@pytest.mark.parametrize("version", known_versions())
def test_a_migration_expands_or_says_whom_it_no_longer_serves(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    monkeypatch.setattr("alembic.op.execute", lambda statement: statements.append(str(statement)))
    folder = files("config_svc.postgres.migrations.versions")
    name = next(entry.name for entry in folder.iterdir() if entry.name.startswith(version))
    importlib.import_module(f"config_svc.postgres.migrations.versions.{name.removesuffix('.py')}").upgrade()
    sql = ";\n".join(statements)
    assert sql
    if takes_away(sql):
        assert re.search(rf"COMMENT ON TABLE {VERSION_TABLE} IS 'serves \d+'", sql)


def test_the_tables_that_queries_see_are_those_that_migrations_make(database_url: str) -> None:
    with psycopg.connect(libpq_url(database_url)) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name, is_nullable = 'YES' FROM information_schema.columns "
            "WHERE table_schema = 'public' AND (table_name, column_name) <> ('feed', 'only_one') "
            "AND table_name <> 'config_schema_version'"
        ).fetchall()
    seen = {
        (table.name, column.name, column.nullable) for table in metadata.tables.values() for column in table.columns
    }
    assert seen == set(columns)


def test_projects_that_agents_are_in_are_made_by_the_migration(postgres_url: str) -> None:
    """Up to 0002 a project was only a name in an agent config."""
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", "config_svc:postgres/migrations")
        config.attributes.update(connection=connection, version_table=VERSION_TABLE)
        alembic_command.upgrade(config, "0002")
        connection.commit()
    engine.dispose()
    with psycopg.connect(libpq_url(postgres_url), autocommit=True) as admin:
        admin.execute(
            "INSERT INTO agent_configs SELECT gen_random_uuid(), p, 'a', '{}', 1, '2026-01-01', now(), d, d "
            "FROM (VALUES ('default', NULL), ('named', NULL), ('left', now())) x (p, d)"
        )
        assert migrate(postgres_url)[0] == "0002"
        made = admin.execute("SELECT id FROM projects ORDER BY id").fetchall()
    assert made == [("default",), ("left",), ("named",)]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_in_another_encoding_is_refused(postgres_url: str, encoding: str) -> None:
    url = make_url(postgres_url)
    other = url.set(database=f"{url.database}_{encoding.lower()}")
    async with await psycopg.AsyncConnection.connect(libpq_url(postgres_url), autocommit=True) as admin:
        made = (
            f"CREATE DATABASE {other.database} ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
        )
        await admin.execute(made.encode())
        try:
            other_url = other.render_as_string(hide_password=False)
            with pytest.raises(StartupError, match=rf"encoding is {encoding}, it must be UTF8: .* ENCODING 'UTF8'"):
                await asyncio.to_thread(migrate, other_url)
            with pytest.raises(StartupError, match=rf"encoding is {encoding}"):
                async with running(other_url):
                    pass
        finally:
            await admin.execute(f"DROP DATABASE {other.database} WITH (FORCE)".encode())
