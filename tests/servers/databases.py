"""Databases with the schema in them, copied from one that was migrated once."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from config_svc.postgres.migrate import migrate
from tests.servers.stores import PostgresServer, libpq_url

_migrated: dict[str, str] = {}


@contextmanager
def migrated_database(server: PostgresServer) -> Iterator[str]:
    """Yield the URL of a fresh database at the newest schema; it is dropped afterwards. The server may die within."""
    admin_url = server.database_url("postgres")
    if admin_url not in _migrated:
        original = f"migrated_{uuid.uuid4().hex}"
        _run(admin_url, f'CREATE DATABASE "{original}"')
        migrate(server.database_url(original))
        _migrated[admin_url] = original
    name = f"test_{uuid.uuid4().hex}"
    _run(admin_url, f'CREATE DATABASE "{name}" TEMPLATE "{_migrated[admin_url]}" STRATEGY FILE_COPY')
    # A copy is another database, with another feed.
    _run(server.database_url(name), "UPDATE feed SET id = gen_random_uuid()")
    try:
        yield server.database_url(name)
    finally:
        _run(admin_url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _run(url: str, statement: str) -> None:
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        connection.execute(statement.encode())


def is_migrated(database_url: str) -> bool:
    """Tell whether a database has the schema of config_svc."""
    with psycopg.connect(libpq_url(database_url)) as connection:
        found = connection.execute("SELECT to_regclass('feed')").fetchone()
    return found is not None and found[0] is not None
