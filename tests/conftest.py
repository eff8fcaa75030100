"""Servers for every test: chosen once (tests/servers/stores.py), started when the first test asks, one each."""

import functools
import gc
import os
import secrets
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest

from config_svc.postgres import connections
from config_svc.postgres import store as postgres_store
from session_svc.redis_client import server as redis_link
from session_svc.redis_client import url as redis_dial
from session_svc.redis_store import wakeups
from tests.servers.databases import migrated_database
from tests.servers.redis_nodes import RedisCluster
from tests.servers.stores import Choice, PostgresServer, RedisServer, fresh_database, fresh_redis
from tests.servers.system import BreakableSystem, OpenSystem, StartSystem, System

CHOICE = pytest.StashKey[Choice]()
LOGICAL_DATABASES = 16
TESTS = Path(__file__).parent
LONG_FILES = (
    "test_images",
    "test_history",
    "test_outages",
    "test_rolling_restart",
    "test_backup",
    "test_faults_commit",
    "test_redis_cluster",
    "test_pickup",
    "test_cli_up_model",
    "test_cli_up",
    "test_restarts",
    "test_cli_up_ends",
    "test_openapi_fuzz",
    "test_console_safety",
    "test_failover",
    "test_cli_up_refusals",
    "test_turn_limits",
    "test_containers",
    "test_leaks",
    "test_console",
    "test_faults_delete",
    "test_redis_failover",
    "test_parsers",
)
FOLDERS = ("faults", "deploy", "system", "hostile", "service", "contract", "fuzz", "unit", "clients")
"""By how long their files take, the longest first."""
SERVERS = {"server_choice", "postgres_server", "redis_server", "redis_cluster"}
MEMORY = Path("/dev/shm")
MIN_MEMORY_BYTES = 4 << 30
LOCAL_TOOLS = {"PARLEY_GATEWAY_EGRESS_ALLOW": "public,http://127.0.0.1:*"}
PATIENCE = 30
"""Seconds."""
STORE_BOUNDS = (
    (redis_link, "CONNECT_SECONDS"),
    (redis_link, "REPLY_SECONDS"),
    (redis_dial, "STEP_SECONDS"),
    (redis_dial, "ASK_SECONDS"),
    (wakeups, "CONNECT_SECONDS"),
    (connections, "CONNECT_SECONDS"),
    (postgres_store, "_POOL_SECONDS"),
)
NOT_RUN = "not run on this machine: "
"""What the reason of a skip begins with that is the machine's fault, and that the end of the run lists by name."""


def pytest_configure() -> None:
    """Commands under test write into pipes, as wide as they like; property tests have no bounds on time."""
    os.environ.pop("COLUMNS", None)
    # Each client reads the certificates of all public authorities: 20 ms, thousands of times.
    httpx._transports.default.create_ssl_context = functools.cache(httpx.create_ssl_context)
    # Servers that write to a disk stand still when it does; this is memory, of which containers may have little.
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MIN_MEMORY_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    # How long an example takes is the machine's affair.
    hypothesis.settings.register_profile(
        "parley", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("parley")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say which servers the tests use (also under -q, where pytest leaves report headers out)."""
    choice = session.config.stash[CHOICE] = Choice.from_environment()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(choice.describe())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no cycles among the modules while they are imported, nor later: they stay until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs servers, and put long files first, so that none of them is left to the end of a run."""
    for item in items:
        if isinstance(item, pytest.Function) and not SERVERS.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.servers)
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    name = item.path.stem
    if name in LONG_FILES:
        return LONG_FILES.index(name)
    return len(LONG_FILES) + FOLDERS.index(item.path.relative_to(TESTS).parts[0])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that this machine could not run."""
    reasons = {report.nodeid: report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])}
    missed = {name: reason.partition(NOT_RUN)[2] for name, reason in reasons.items() if NOT_RUN in reason}
    if missed:
        terminalreporter.section("not run on this machine")
        for name, why in sorted(missed.items()):
            terminalreporter.write_line(f"{name}: {why}")


@pytest.fixture(scope="session", autouse=True)
def no_processes_without_slow_tests(pytestconfig: pytest.Config) -> Iterator[None]:
    """Let no test start a process in a run without slow tests: the mark is missing."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("this test starts a process and is not marked `slow`")

    with pytest.MonkeyPatch.context() as patch:
        if "not slow" in pytestconfig.option.markexpr:
            patch.setattr(subprocess.Popen, "__init__", refuse)
        yield


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
    server.remove()


@pytest.fixture(scope="session")
def redis_server(server_choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis of this session. Tests share it: whoever wants to kill one makes its own."""
    server = server_choice.redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def redis_cluster(server_choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """The Redis cluster of this session, 3 primaries and 3 replicas. Whoever wants to kill one makes its own."""
    if server_choice.kind != "embedded":
        pytest.skip("only embedded servers make a cluster")
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def patient_with_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengthen the product's bounds on connecting to a store and on its answers, for tests that are not about them.

    A machine that stands still for a second or two is not a store that is down.
    """
    for module, name in STORE_BOUNDS:
        monkeypatch.setattr(module, name, PATIENCE)


@pytest.fixture
def cluster_url(redis_cluster: RedisCluster, patient_with_stores: None) -> Iterator[str]:
    """URL of the session's Redis cluster, empty."""
    redis_cluster.flush()
    yield redis_cluster.url
    redis_cluster.flush()


@pytest.fixture(scope="session")
def logical_databases() -> list[int]:
    """The logical databases of the session's Redis that no test holds."""
    return list(range(LOGICAL_DATABASES))


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, patient_with_stores: None) -> Iterator[str]:
    """SQLAlchemy URL (postgresql+psycopg://) of a fresh, empty database, dropped after the test."""
    with fresh_database(postgres_server) as url:
        yield url


@pytest.fixture
def redis_url(redis_server: RedisServer, logical_databases: list[int], patient_with_stores: None) -> Iterator[str]:
    """URL of an empty logical database that the test owns alone (server functions are shared by all)."""
    with fresh_redis(redis_server, logical_databases) as url:
        yield url


@pytest.fixture(scope="session")
def open_system(
    postgres_server: PostgresServer,
    redis_server: RedisServer,
    logical_databases: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> OpenSystem:
    """Opens whole systems, each on stores of its own in the session's servers."""

    @contextmanager
    def opened(name: str, **options: Any) -> Iterator[System]:
        with (
            migrated_database(postgres_server) as postgres_url,
            fresh_redis(redis_server, logical_databases) as redis_url,
            System(postgres_url, redis_url, folder=tmp_path_factory.mktemp(name), **options) as system,
        ):
            yield system

    return opened


@pytest.fixture(scope="session")
def shared_system(open_system: OpenSystem) -> Iterator[System]:
    """The whole system, with two gateways."""
    with open_system("system", gateways=2) as system:
        yield system


@pytest.fixture(scope="module")
def parley_system(shared_system: System) -> Iterator[System]:
    """The session's system, without any agent or session, for the tests of one module, which must leave it whole."""
    yield shared_system
    shared_system.clear()


@pytest.fixture(scope="session")
def guarded_system(open_system: OpenSystem) -> Iterator[System]:
    """The whole system with authentication required, and an agent `hello`; its helpers show the operator key.

    Tool servers may be on this machine.
    """
    key = secrets.token_urlsafe(32)
    env = {"PARLEY_AUTH": "required", "PARLEY_OPERATOR_KEY": key}
    with open_system("guarded", gateways=2, env=env, gateway_env=LOCAL_TOOLS, operator_key=key) as system:
        system.create_agent("hello")
        yield system


@pytest.fixture
def start_system(server_choice: Choice, tmp_path: Path) -> Iterator[StartSystem]:
    """Start whole systems, each on a PostgreSQL and a Redis of its own, that the test may take apart."""
    with ExitStack() as systems:

        def start(**options: Any) -> BreakableSystem:
            folder = tmp_path / uuid.uuid4().hex[:8]
            folder.mkdir()
            postgres, valkey = server_choice.own_postgres(folder), server_choice.own_redis(folder)
            return systems.enter_context(BreakableSystem(postgres, valkey, folder=folder, **options))

        yield start
