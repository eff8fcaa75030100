"""Databases with the schema in them, copied from one that was migrated once."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from config_svc.migrate import migrate
from tests.servers.stores import PostgresServer, libpq_url

_migrated: dict[str, str] = {}


@contextmanager
def migrated_database(server: PostgresServer) -> Iterator[str]:
    """Yield the URL of a fresh database at the newest schema; it is dropped afterwards."""
    admin_url = server.database_url("postgres")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(libpq_url(admin_url), autocommit=True) as admin:
        if admin_url not in _migrated:
            original = f"migrated_{uuid.uuid4().hex}"
            admin.execute(f'CREATE DATABASE "{original}"'.encode())
            migrate(server.database_url(original))
            _migrated[admin_url] = original
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{_migrated[admin_url]}"'.encode())
        # A copy is another database, with another feed.
        with psycopg.connect(libpq_url(server.database_url(name)), autocommit=True) as copy:
            copy.execute("UPDATE feed SET id = gen_random_uuid()")
        yield server.database_url(name)
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
