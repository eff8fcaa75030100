import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from parley_cli.embedded.postgres import EmbeddedPostgres
from parley_cli.embedded.redis import EmbeddedRedis
from parley_cli.errors import DataInUse, LocalError, PortTaken
from parley_cli.processes.child import Identity
from tests.servers.processes import wait_until_ended
from tests.servers.stores import libpq_url

pytestmark = pytest.mark.servers


def run_sql(server: EmbeddedPostgres, statement: bytes) -> list[tuple[object, ...]]:
    with psycopg.connect(libpq_url(server.url), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_postgres_keeps_committed_rows_over_stop_and_sigkill(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    server.start()
    run_sql(server, b"CREATE TABLE t (n int)")
    run_sql(server, b"INSERT INTO t VALUES (1)")
    assert server.stop() == 0
    server.start()
    port = server.port
    run_sql(server, b"INSERT INTO t VALUES (2)")
    server.kill()
    server.start()
    assert server.port == port
    assert run_sql(server, b"SELECT n FROM t ORDER BY n") == [(1,), (2,)]
    server.stop()


def test_pid_is_postgres_itself(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    server.start()
    assert psutil.Process(server.pid).name() == "postgres"
    server.stop()
    assert not psutil.pid_exists(server.pid)


def test_a_stale_lock_whose_pid_now_belongs_to_a_stranger_is_no_obstacle(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    server.start()
    server.kill()
    lock = server.data / "postmaster.pid"
    lines = lock.read_text().split("\n")
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    server.start()
    server.stop()


def test_what_an_interrupted_initdb_left_is_no_obstacle(tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    (data / "base").mkdir(parents=True, mode=0o700)
    (data / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(data, durable=False)
    server.start()
    assert run_sql(server, b"SELECT 1") == [(1,)]
    server.stop()


def test_two_servers_on_one_data_directory_are_refused(tmp_path: Path) -> None:
    first = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    first.start()
    with pytest.raises(DataInUse, match=str(first.pid)):
        EmbeddedPostgres(tmp_path / "postgres", durable=False).start()
    assert run_sql(first, b"SELECT 1") == [(1,)]
    first.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_postgres_runs_as_nobody_where_user_namespaces_are_refused(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False, identity=Identity.NOBODY)
    server.start()
    assert psutil.Process(server.pid).username() == "nobody"
    assert "nobody" in server.note
    server.kill()
    again = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    again.start()
    moved = again.data.resolve().parent
    again.stop()
    again.remove()
    assert not moved.exists()


def test_data_that_was_moved_and_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "postgres").symlink_to(tmp_path / "gone")
    with pytest.raises(LocalError, match=r"postgres leads to .*/gone, which does not exist"):
        EmbeddedPostgres(tmp_path / "postgres").start()


def test_the_store_refuses_a_caller_without_its_password(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    postgres.start()
    with pytest.raises(psycopg.OperationalError, match="no password"):
        psycopg.connect(host="127.0.0.1", port=postgres.port, user="parley", dbname="parley")
    postgres.stop()
    folder = tmp_path / 'it\'s "here" \\ ü\n'
    folder.mkdir()
    valkey = EmbeddedRedis(folder / "redis")
    valkey.start()
    with socket.create_connection(("127.0.0.1", valkey.port)) as stranger:
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")
    valkey.stop()
    assert (folder / "redis.password").stat().st_mode & 0o077 == 0


def test_redis_keeps_what_it_answered_over_sigkill(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
    server.kill()
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"
    assert server.stop() == 0


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    first = EmbeddedRedis(tmp_path / "one")
    first.start()
    second = EmbeddedRedis(tmp_path / "two", port=first.port, port_setting="PARLEY_UP_REDIS_PORT")
    with pytest.raises(PortTaken, match=f"redis: port {first.port} is taken; free it or set PARLEY_UP_REDIS_PORT"):
        second.start()
    postgres = EmbeddedPostgres(tmp_path / "postgres", port=first.port)
    with pytest.raises(PortTaken, match=f"postgres: port {first.port}"):
        postgres.start()
    first.stop()


def test_servers_die_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = f"""
        import sys, time
        from pathlib import Path
        from parley_cli.embedded.postgres import EmbeddedPostgres
        from parley_cli.embedded.redis import EmbeddedRedis

        folder = Path({str(tmp_path)!r})
        servers = EmbeddedPostgres(folder / "postgres", durable=False), EmbeddedRedis(folder / "redis")
        for server in servers:
            server.start()
        print(*(server.pid for server in servers), flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert len(children) == 2
    wait_until_ended(children)
