"""Three gateways, two session_svc, config_svc and real stores, with a fault proxy on every link between them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import redis

from config_svc.postgres.migrate import migrate
from parley_cli.processes.readiness import grpc_serves
from servicekit.server import STARTED
from tests.faults.proxy import FaultProxy, Proxies
from tests.servers.mock_model import MODEL
from tests.servers.prefork import PreforkedChild
from tests.servers.processes import ServiceProcess, clean_environment
from tests.servers.stores import Choice, PostgresServer, RedisServer
from tests.servers.system import PROVIDER

LEASE_SECONDS = 2.0
TOOL_SERVER = "counting"

SESSION_SETTINGS = {"PARLEY_SESSION_LEASE": str(LEASE_SECONDS), "PARLEY_SESSION_CLAIM": "0.3"}
GATEWAY_SETTINGS = {
    "PARLEY_GATEWAY_LEASE_RENEW_INTERVAL": "0.5",
    "PARLEY_GATEWAY_PEER_TIMEOUT": "2",
    "PARLEY_GATEWAY_SESSION_WAIT_TIMEOUT": "4",
    "PARLEY_GATEWAY_TURN_TIMEOUT": "15",
    "PARLEY_GATEWAY_CONNECT_TIMEOUT": "1",
    "PARLEY_GATEWAY_FIRST_TOKEN_TIMEOUT": "4",
    "PARLEY_GATEWAY_BETWEEN_TOKENS_TIMEOUT": "4",
    "PARLEY_GATEWAY_ANSWER_TIMEOUT": "4",
    "PARLEY_GATEWAY_DRAIN_TIMEOUT": "2",
}


class Service(ServiceProcess):
    """A service process; `entry` is a module of the tests that patches it before it runs."""

    def __init__(self, module: str, env: Mapping[str, str], *, logs: Path, name: str, entry: str | None = None) -> None:
        super().__init__(module, env, logs=logs, name=name)
        if entry is not None:
            environment = clean_environment(self.settings)
            self._child = PreforkedChild(name, module, log=self.log, env=environment, directory=logs, entry=entry)

    def serves(self) -> bool:
        """Whether it has started, whatever its peers do: faults go on. Whether all are ready is asked after them."""
        return grpc_serves(self.grpc_target, STARTED)


class Cluster:
    """The system under test. `processes` and `links` are what faults are made on."""

    def __init__(
        self,
        folder: Path,
        proxies: Proxies,
        model_address: str,
        tools_address: str = "",
        *,
        gateways: int = 3,
        session_svcs: int = 2,
        session_entry: str | None = None,
        gateway_entry: str | None = None,
        session_settings: Mapping[str, str] | None = None,
        gateway_settings: Mapping[str, str] | None = None,
    ) -> None:
        choice = Choice.from_environment()
        self.postgres: PostgresServer = choice.own_postgres(folder)
        self.redis: RedisServer = choice.own_redis(folder)
        self.links: dict[str, FaultProxy] = {}
        self._folder = folder
        self._proxies = proxies
        self._model_address = model_address
        self._tools_address = tools_address
        self._counts = gateways, session_svcs
        self._entries = session_entry, gateway_entry
        self._settings = (
            {**SESSION_SETTINGS, **(session_settings or {})},
            {
                **GATEWAY_SETTINGS,
                **(gateway_settings or {}),
            },
        )
        self.gateways: list[Service] = []
        self.sessions: list[Service] = []
        self.config: Service | None = None

    @property
    def services(self) -> dict[str, Service]:
        """Every service process by its name, in the order in which they depend on each other."""
        all_of_them = [*([self.config] if self.config else []), *self.sessions, *self.gateways]
        return {service.name: service for service in all_of_them}

    def start(self) -> None:
        """Start the stores and every service, and wait until all of it serves."""
        self.postgres.start()
        self.start_redis()
        migrate(self.postgres.database_url("postgres"))
        self.config = self._make_config()
        for number in range(self._counts[1]):
            self.sessions.append(self._make_session(number))
        for number in range(self._counts[0]):
            self.gateways.append(self._make_gateway(number))
        for service in self.services.values():
            service.launch()
        for service in self.services.values():
            service.wait()

    def start_redis(self) -> None:
        """Start Redis, durable as its own words have it: `appendfsync always`.

        With `everysec` it answers before it has written while a sync of the disk is under way, so that even a kill of
        the process alone loses acknowledged turns (tests/faults/test_faults_durability.py).
        """
        self.redis.start()
        with redis.Redis.from_url(self.redis.database_url(0)) as client:
            client.config_set("appendfsync", "always")

    def close(self) -> None:
        """End everything, however it stands."""
        for service in reversed(self.services.values()):
            service.close()
        self.resume_stores()
        for store in (self.postgres, self.redis):
            store.remove()

    def agent(self, agent_id: str, window: int, **fields: Any) -> dict[str, Any]:
        """Return the body that creates an agent of the run."""
        return {
            "id": agent_id,
            "name": "History",
            "template_id": "assistant",
            "instructions": "You are a test.",
            "model": {"provider": PROVIDER, "name": MODEL},
            "memory": {"max_messages": window},
            **fields,
        }

    def store_processes(self, name: str) -> list[psutil.Process]:
        """Return a store's processes, the server's own first; none where it runs in a container."""
        store = self.redis if name == "redis" else self.postgres
        pid = getattr(store, "pid", None)
        if pid is None:
            return []
        server = psutil.Process(pid)
        return [server, *server.children(recursive=True)]

    def resume_stores(self) -> None:
        """Let paused stores go on."""
        for name in ("redis", "postgres"):
            try:
                for process in self.store_processes(name):
                    process.resume()
            except (psutil.NoSuchProcess, RuntimeError):
                continue

    def _link(self, name: str, address: str) -> str:
        self.links[name] = self._proxies.to(name, address)
        return self.links[name].address

    def _store_url(self, name: str, url: str) -> str:
        head, _, rest = url.rpartition("@")
        address, _, path = rest.partition("/")
        return f"{head}@{self._link(name, address)}/{path}"

    def _make_config(self) -> Service:
        url = self._store_url("config>postgres", self.postgres.database_url("postgres"))
        return Service("config_svc", {"PARLEY_CONFIG_DATABASE_URL": url}, logs=self._folder, name="config")

    def _make_session(self, number: int) -> Service:
        assert self.config is not None
        name = f"session{number}"
        settings = {
            "PARLEY_SESSION_REDIS_URL": self._store_url(f"{name}>redis", self.redis.database_url(0)),
            "PARLEY_SESSION_CONFIG_TARGET": self._link(f"{name}>config", self.config.grpc_target),
            **self._settings[0],
        }
        return Service("session_svc", settings, logs=self._folder, name=name, entry=self._entries[0])

    def _make_gateway(self, number: int) -> Service:
        assert self.config is not None
        name = f"gateway{number}"
        peers = [self._link(f"{name}>{peer.name}", peer.grpc_target) for peer in self.sessions]
        model = self._link(f"{name}>model", self._model_address)
        settings = {
            "PARLEY_GATEWAY_CONFIG_TARGET": self._link(f"{name}>config", self.config.grpc_target),
            "PARLEY_GATEWAY_SESSION_TARGET": ",".join(peers),
            "PARLEY_PROVIDERS": json.dumps({PROVIDER: {"base_url": f"http://{model}/v1"}}),
            **self._settings[1],
        }
        if self._tools_address:
            tools = self._link(f"{name}>tools", self._tools_address)
            settings["PARLEY_TOOL_SERVERS"] = json.dumps({TOOL_SERVER: {"url": f"http://{tools}/mcp"}})
        return Service("chat_gateway", settings, logs=self._folder, name=name, entry=self._entries[1])
