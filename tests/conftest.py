"""Servers for every test: chosen once (tests/servers/stores.py), started when the first test asks, one each."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
import redis

from tests.servers.stores import Choice, PostgresServer, RedisServer, libpq_url

CHOICE = pytest.StashKey[Choice]()
LOGICAL_DATABASES = 16


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say which servers the tests use (also under -q, where pytest leaves report headers out)."""
    choice = session.config.stash[CHOICE] = Choice.from_environment()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(choice.describe())


@pytest.fixture(scope="session")
def server_choice(pytestconfig: pytest.Config) -> Choice:
    """Which servers this run uses; `own_postgres` and `own_redis` make one that a test may kill."""
    return pytestconfig.stash[CHOICE]


@pytest.fixture(scope="session")
def postgres_server(server_choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The PostgreSQL of this session. Tests share it: whoever wants to kill one makes its own."""
    server = server_choice.postgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop()
    server.remove()


@pytest.fixture(scope="session")
def redis_server(server_choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis of this session. Tests share it: whoever wants to kill one makes its own."""
    server = server_choice.redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()
    server.remove()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """SQLAlchemy URL (postgresql+psycopg://) of a fresh, empty database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(libpq_url(postgres_server.database_url("postgres")), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
        yield postgres_server.database_url(name)
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture(scope="session")
def logical_databases() -> list[int]:
    """The logical databases of the session's Redis that no test holds."""
    return list(range(LOGICAL_DATABASES))


@pytest.fixture
def redis_url(redis_server: RedisServer, logical_databases: list[int]) -> Iterator[str]:
    """URL of an empty logical database that the test owns alone (server functions are shared by all)."""
    number = logical_databases.pop(0)
    url = redis_server.database_url(number)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()
    logical_databases.insert(0, number)
