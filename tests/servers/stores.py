"""The PostgreSQL and Redis that tests run against, chosen by PARLEY_TEST_SERVERS and never by what happens to work.

`embedded` (default) starts the servers of the wheels; `containers` starts `postgres:18` and `redis:8` by
testcontainers; PARLEY_TEST_POSTGRES_URL and PARLEY_TEST_REDIS_URL (both, with PARLEY_TEST_SERVERS=urls) name servers
that already run and belong to the tests alone: databases are made and dropped in the one, every logical database is
emptied in the other.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from parley_cli.embedded.postgres import EmbeddedPostgres
from parley_cli.embedded.redis import EmbeddedRedis
from tests.servers.ports import free_port

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

READY_SECONDS = 60.0
PASSWORD = "parley-tests"
KINDS = ("embedded", "containers", "urls")


class PostgresServer(Protocol):
    """A PostgreSQL of the tests: `kill` is SIGKILL, `start` brings it back as it was, `remove` ends it for good."""

    def start(self) -> None: ...
    def stop(self) -> object: ...
    def kill(self) -> None: ...
    def remove(self) -> None: ...
    def database_url(self, database: str) -> str: ...


class RedisServer(Protocol):
    """A Redis of the tests: `kill` is SIGKILL, `start` brings it back as it was, `remove` ends it for good."""

    def start(self) -> None: ...
    def stop(self) -> object: ...
    def kill(self) -> None: ...
    def remove(self) -> None: ...
    def database_url(self, number: int) -> str: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """Which servers this test run uses."""

    kind: str
    postgres_url: str | None
    redis_url: str | None

    @classmethod
    def from_environment(cls) -> Self:
        """Read the choice; raises pytest.UsageError when it is no choice at all."""
        choice = cls(
            kind=os.environ.get("PARLEY_TEST_SERVERS", "embedded"),
            postgres_url=os.environ.get("PARLEY_TEST_POSTGRES_URL"),
            redis_url=os.environ.get("PARLEY_TEST_REDIS_URL"),
        )
        if choice.kind not in KINDS:
            raise pytest.UsageError(f"PARLEY_TEST_SERVERS={choice.kind!r}: must be one of {', '.join(KINDS)}")
        if choice.kind == "urls" and not (choice.postgres_url and choice.redis_url):
            raise pytest.UsageError("PARLEY_TEST_SERVERS=urls needs PARLEY_TEST_POSTGRES_URL and PARLEY_TEST_REDIS_URL")
        return choice

    def describe(self) -> str:
        """Return the line that a test run starts with; passwords are left out."""
        postgres = _without_password(self.postgres_url) if self.postgres_url else f"{self.kind} PostgreSQL 18"
        valkey = "embedded Valkey" if self.kind == "embedded" else "containers Redis 8"
        return f"test servers: {postgres}, {_without_password(self.redis_url) if self.redis_url else valkey}"

    def postgres(self, folder: Path) -> PostgresServer:
        """Return the session's PostgreSQL, not started."""
        return GivenPostgres(self.postgres_url) if self.postgres_url else self.own_postgres(folder)

    def redis(self, folder: Path) -> RedisServer:
        """Return the session's Redis, not started."""
        return GivenRedis(self.redis_url) if self.redis_url else self.own_redis(folder)

    def own_postgres(self, folder: Path) -> PostgresServer:
        """Return a PostgreSQL that one test may kill; skips the test where only a URL is known."""
        if self.kind == "urls":
            pytest.skip("PARLEY_TEST_SERVERS=urls: a server that was given cannot be killed")
        if self.kind == "containers":
            return ContainerPostgres()
        return EmbeddedPostgres(folder / "postgres", durable=False)

    def own_redis(self, folder: Path) -> RedisServer:
        """Return a Redis that one test may kill; skips the test where only a URL is known."""
        if self.kind == "urls":
            pytest.skip("PARLEY_TEST_SERVERS=urls: a server that was given cannot be killed")
        return ContainerRedis() if self.kind == "containers" else EmbeddedRedis(folder / "redis")


class Container:
    """A container with one published port that stays the same over `kill` and `start`."""

    def __init__(self, image: str, container_port: int, *, env: dict[str, str], command: list[str] | None) -> None:
        self.port = free_port()
        self._image = image
        self._container_port = container_port
        self._env = env
        self._command = command
        self._container: DockerContainer | None = None

    def start(self, answers: Callable[[], bool]) -> None:
        """Create the container or start it again, and wait until it answers."""
        if self._container is None:
            self._container = self._create()
        wrapped = self._container.get_wrapped_container()
        wrapped.start()
        deadline = time.monotonic() + READY_SECONDS
        while not answers():
            assert time.monotonic() < deadline, f"{self._image} did not answer: {wrapped.logs(tail=5)!r}"
            time.sleep(0.1)

    def _create(self) -> "DockerContainer":
        # Both are read when testcontainers is imported.
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
        from docker.errors import DockerException  # type: ignore[import-untyped]
        from testcontainers.core.container import DockerContainer

        try:
            container = DockerContainer(self._image, command=self._command, env=self._env)  # type: ignore[arg-type]
            return container.with_bind_ports(self._container_port, self.port).start()
        except DockerException as error:
            pytest.exit(f"PARLEY_TEST_SERVERS=containers: Docker cannot run {self._image}: {error}", returncode=1)

    @property
    def host(self) -> str:
        """Address under which the published port is reached."""
        assert self._container is not None
        return self._container.get_container_host_ip()

    def signal(self, signal: str) -> None:
        """Send a signal to the server and wait for its end."""
        assert self._container is not None
        self._container.get_wrapped_container().kill(signal)
        self._container.get_wrapped_container().wait(timeout=30)

    def remove(self) -> None:
        """Remove the container with its data."""
        if self._container is not None:
            self._container.stop()


class ContainerPostgres:
    """`postgres:18` in a container."""

    def __init__(self) -> None:
        self._container = Container(
            "postgres:18", 5432, env={"POSTGRES_USER": "parley", "POSTGRES_PASSWORD": PASSWORD}, command=None
        )

    def start(self) -> None:
        self._container.start(lambda: postgres_answers(self.database_url("postgres")))

    def stop(self) -> None:
        self._container.signal("SIGINT")

    def kill(self) -> None:
        self._container.signal("SIGKILL")

    def remove(self) -> None:
        self._container.remove()

    def database_url(self, database: str) -> str:
        return f"postgresql+psycopg://parley:{PASSWORD}@{self._container.host}:{self._container.port}/{database}"


class ContainerRedis:
    """`redis:8` in a container, with its append-only file on."""

    def __init__(self) -> None:
        command = ["redis-server", "--appendonly", "yes", "--save", "", "--requirepass", PASSWORD]
        self._container = Container("redis:8", 6379, env={}, command=command)

    def start(self) -> None:
        self._container.start(lambda: redis_answers(self.database_url(0)))

    def stop(self) -> None:
        self._container.signal("SIGTERM")

    def kill(self) -> None:
        self._container.signal("SIGKILL")

    def remove(self) -> None:
        self._container.remove()

    def database_url(self, number: int) -> str:
        return f"redis://:{PASSWORD}@{self._container.host}:{self._container.port}/{number}"


class Given:
    """A server that runs already and is not ours to stop."""

    def __init__(self, url: str) -> None:
        self._url = url

    def stop(self) -> None:
        """Leave it running."""

    def kill(self) -> None:
        pytest.skip("a server that was given by its URL cannot be killed")

    def remove(self) -> None:
        """Leave it as it is."""

    def _with_path(self, path: str) -> str:
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{path}"))


class GivenPostgres(Given):
    """The PostgreSQL of PARLEY_TEST_POSTGRES_URL; its user may create databases."""

    def start(self) -> None:
        assert postgres_answers(self._url), f"PARLEY_TEST_POSTGRES_URL does not answer: {_without_password(self._url)}"

    def database_url(self, database: str) -> str:
        return self._with_path(database)


class GivenRedis(Given):
    """The Redis of PARLEY_TEST_REDIS_URL."""

    def start(self) -> None:
        assert redis_answers(self._url), f"PARLEY_TEST_REDIS_URL does not answer: {_without_password(self._url)}"

    def database_url(self, number: int) -> str:
        return self._with_path(str(number))


def libpq_url(url: str) -> str:
    """Return a SQLAlchemy URL as psycopg itself takes it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def postgres_answers(url: str) -> bool:
    """Tell whether a PostgreSQL server answers."""
    try:
        psycopg.connect(libpq_url(url), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def redis_answers(url: str) -> bool:
    """Tell whether a Redis server answers."""
    with redis.Redis.from_url(url, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


@contextmanager
def fresh_database(server: PostgresServer) -> Iterator[str]:
    """Make an empty database and yield its SQLAlchemy URL (postgresql+psycopg://); drop it afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(libpq_url(server.database_url("postgres")), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield server.database_url(name)
        finally:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@contextmanager
def fresh_redis(server: RedisServer, free: list[int]) -> Iterator[str]:
    """Take a logical database from `free` and yield its URL, empty; empty it and give it back afterwards."""
    number = free.pop(0)
    url = server.database_url(number)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        try:
            yield url
        finally:
            client.flushdb()
            free.insert(0, number)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
