"""config_svc behind PgBouncer, which gives a session to another client as soon as a transaction ends."""

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, make_url

from config_svc.postgres.store import PostgresStore
from parley.config.v1 import agent_config_service_pb2 as pb
from servicekit.errors import StartupError, Unavailable
from tests.conftest import NOT_RUN
from tests.servers.ports import free_port
from tests.servers.processes import clean_environment
from tests.service.config_svc.conftest import Running, agent, publish, running

SERVER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def unprivileged() -> dict[str, Any]:
    """PgBouncer does not run as root."""
    return {"user": pwd.getpwnam("nobody").pw_uid} if os.getuid() == 0 else {}


@contextlib.contextmanager
def pooler(url: str, folder: Path, mode: str) -> Iterator[str]:
    """A pooler with two sessions before a database; yields its URL."""
    if SERVER is None:
        pytest.skip(NOT_RUN + "there is no pgbouncer")
    target, port = make_url(url), free_port()
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "users.txt").write_text(f'"{target.username}" "{target.password or ""}"\n')
    (folder / "pgbouncer.ini").write_text(f"""
[databases]
{target.database} = host={target.host} port={target.port} dbname={target.database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users.txt
pool_mode = {mode}
default_pool_size = {2 if mode == "transaction" else 20}
""")
    process = subprocess.Popen(
        [SERVER, str(folder / "pgbouncer.ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **unprivileged()
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < deadline
            assert process.poll() is None, "pgbouncer ended"
            time.sleep(0.05)
        yield target.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def by_transaction(database_url: str, readable_path: Path) -> Iterator[str]:
    with pooler(database_url, readable_path / "pooler", "transaction") as url:
        yield url


@pytest.fixture
def readable_path() -> Iterator[Path]:
    """A folder that an unprivileged server reads; pytest's own are closed to it."""
    folder = Path("/tmp") / f"parley-pooler-{os.getpid()}-{free_port()}"
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


async def create(service: Running, number: int) -> None:
    await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=agent(f"a{number}")))


@pytest.mark.parametrize("direct", [False, True])
async def test_everything_works_through_a_pooler_by_transaction(
    by_transaction: str, database_url: str, direct: bool
) -> None:
    past = {"database_direct_url": SecretStr(database_url)} if direct else {}
    async with running(by_transaction, database_pooling="transaction", feed_poll=60, **past) as service:
        await service.templates.PublishTemplate(publish())
        watch = service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest())
        await watch.read()
        # As many at once as make sessions change hands, often enough that statements would have been prepared.
        for first in range(0, 30, 10):
            await asyncio.gather(*(create(service, first + number) for number in range(10)))
        async with asyncio.timeout(50):  # less than the poll
            seen = [(await watch.read()).agent_config.id for _ in range(30)]
        watch.cancel()
        assert sorted(seen) == sorted(f"a{number}" for number in range(30))
        listed = await service.agents.ListAgentConfigs(pb.ListAgentConfigsRequest(page_size=100))
        assert len(listed.agent_configs) == 30


def prepare_threshold(connection: Connection) -> int | None:
    driver: Any = connection.connection.driver_connection
    threshold: int | None = driver.prepare_threshold
    return threshold


async def test_a_statement_is_bounded_through_a_pooler_and_leaves_nothing_in_its_session(by_transaction: str) -> None:
    store = PostgresStore(by_transaction, answer_seconds=2.5, by_transaction=True)
    asked = "SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')"
    bounds = await store.run_sync(lambda connection: connection.exec_driver_sql(asked).one())
    assert tuple(bounds) == ("2500ms", "2500ms")
    assert await store.run_sync(prepare_threshold) is None  # poolers that keep track of them are the newer ones
    async with store.tail(), store._tails.connect() as other:
        assert await other.run_sync(prepare_threshold) is None
        assert tuple((await other.exec_driver_sql(asked)).one()) == ("0", "0")
    await store.close()


async def test_a_pooler_by_transaction_that_nobody_named_is_refused_at_start(by_transaction: str) -> None:
    with pytest.raises(StartupError, match="PARLEY_CONFIG_DATABASE_POOLING=transaction"):
        async with running(by_transaction):
            pass


async def test_a_pooler_by_session_needs_nothing(database_url: str, readable_path: Path) -> None:
    with pooler(database_url, readable_path / "pooler", "session") as url:
        async with running(url) as service:
            await service.templates.PublishTemplate(publish())
            await create(service, 1)


async def test_what_the_pooler_refuses_is_logged_by_its_words(by_transaction: str) -> None:
    store = PostgresStore(make_url(by_transaction).set(database="nowhere").render_as_string(False), by_transaction=True)
    with pytest.raises(Unavailable):
        await store.templates("", 1)
    await store.close()


@pytest.mark.parametrize("direct", [False, True])
def test_migrations_go_past_a_pooler_by_transaction(by_transaction: str, database_url: str, direct: bool) -> None:
    environment = {"PARLEY_CONFIG_DATABASE_URL": by_transaction, "PARLEY_CONFIG_DATABASE_POOLING": "transaction"}
    if direct:
        environment["PARLEY_CONFIG_DATABASE_DIRECT_URL"] = database_url
    command = [sys.executable, "-m", "config_svc", "migrate"]
    done = subprocess.run(
        command, env=clean_environment(environment), capture_output=True, text=True, timeout=120, check=False
    )
    if direct:
        assert done.stdout.startswith("schema is at ")
    else:
        assert done.stderr == (
            "config_svc migrate: migrations go past the pooler: PARLEY_CONFIG_DATABASE_DIRECT_URL is required\n"
        )
