"""The whole system as child processes: config_svc, session_svc and gateways on real stores and a mock model."""

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, Self

import httpx

from config_svc.postgres.migrate import migrate
from parley_client import Client, Servers
from tests.servers.databases import is_migrated
from tests.servers.mock_model import MODEL, MockModel
from tests.servers.processes import READY_SECONDS, ServiceProcess
from tests.servers.stores import PostgresServer, RedisServer

PROVIDER = "mock"
PATIENT_CONFIG = {"PARLEY_CONFIG_DATABASE_TIMEOUT": "20"}
PATIENT_GATEWAY = {
    "PARLEY_GATEWAY_CONFIG_READ_TIMEOUT": "20",
    "PARLEY_GATEWAY_PEER_TIMEOUT": "20",
    "PARLEY_GATEWAY_CONNECT_TIMEOUT": "20",
}
"""What is 1 to 5 s by default: no test but one of these bounds is to meet it, however long the machine stands still."""


class System:
    """A running system; a context manager. `env` goes to every service, `gateway_env` and so on to one kind."""

    def __init__(
        self,
        postgres_url: str,
        redis_url: str,
        *,
        folder: Path,
        gateways: int = 1,
        env: Mapping[str, str] | None = None,
        config_env: Mapping[str, str] | None = None,
        session_env: Mapping[str, str] | None = None,
        gateway_env: Mapping[str, str] | None = None,
        operator_key: str | None = None,
    ) -> None:
        self.postgres_url = postgres_url
        self.operator_key = operator_key or ""
        self._headers = {"Authorization": f"Bearer {operator_key}"} if operator_key else {}
        self.redis_url = redis_url
        self.model = MockModel()
        self._folder = folder
        self._gateway_env = {**(env or {}), **(gateway_env or {})}
        config_settings = {"PARLEY_CONFIG_DATABASE_URL": postgres_url, **PATIENT_CONFIG, **(env or {})}
        config_settings |= config_env or {}
        self.config = ServiceProcess("config_svc", config_settings, logs=folder)
        session_settings = {
            "PARLEY_SESSION_REDIS_URL": redis_url,
            "PARLEY_SESSION_CONFIG_TARGET": self.config.grpc_target,
        }
        session_settings |= {**(env or {}), **(session_env or {})}
        self.session = ServiceProcess("session_svc", session_settings, logs=folder)
        self.gateways: list[ServiceProcess] = []
        self._wanted_gateways = gateways

    @property
    def services(self) -> list[ServiceProcess]:
        """Every service process, in the order in which they depend on each other."""
        return [self.config, self.session, *self.gateways]

    @property
    def http_url(self) -> str:
        """HTTP address of the first gateway."""
        return self.gateways[0].http_url

    @property
    def grpc_target(self) -> str:
        """gRPC address of the first gateway."""
        return self.gateways[0].grpc_target

    def new_gateway(self, env: Mapping[str, str] | None = None) -> ServiceProcess:
        """Add a gateway, not started; it is closed with the system."""
        settings = {
            **PATIENT_GATEWAY,
            "PARLEY_GATEWAY_CONFIG_TARGET": self.config.grpc_target,
            "PARLEY_GATEWAY_SESSION_TARGET": self.session.grpc_target,
            "PARLEY_PROVIDERS": json.dumps(
                {
                    # Tests script failures one by one, and share the provider.
                    PROVIDER: {"base_url": self.model.url, "max_retries": 0, "breaker_failures": 0}
                }
            ),
        }
        settings |= {**self._gateway_env, **(env or {})}
        name = f"gateway-{len(self.gateways) + 1}"
        gateway = ServiceProcess("chat_gateway", settings, logs=self._folder, name=name)
        self.gateways.append(gateway)
        return gateway

    def client(self, gateway: int = 0) -> httpx.Client:
        """Return a new HTTP client of one gateway, with the operator key if there is one; the caller closes it."""
        url = self.gateways[gateway].http_url
        return httpx.Client(base_url=url, headers=self._headers, timeout=60, trust_env=False)

    def grpc_client(self, gateway: int = 0) -> Client:
        """Return a new gRPC client of one gateway and the other services, each call made once; `with` closes it."""
        return Client(
            Servers(
                self.gateways[gateway].grpc_target,
                config=self.config.grpc_target,
                session=self.session.grpc_target,
                api_key=self.operator_key,
                retry=False,
            )
        )

    def create_agent(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        """Create an agent of the mock model over HTTP; `fields` replace or add to its body."""
        body = {
            "id": agent_id,
            "name": agent_id.title(),
            "template_id": "assistant",
            "instructions": "You are a test.",
            "model": {"provider": PROVIDER, "name": MODEL},
        }
        with self.client() as client:
            answer = client.post("/v1/agents", json=body | fields)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    def chat(self, agent_id: str, text: str, *, gateway: int = 0, **fields: Any) -> httpx.Response:
        """Run one unary turn over HTTP, with whatever outcome; `fields` go into the body (`session_id`, ...)."""
        body = {"model": agent_id, "messages": [{"role": "user", "content": text}], **fields}
        with self.client(gateway) as client:
            return client.post("/v1/chat/completions", json=body)

    def clear(self) -> None:
        """Delete every agent, and so every session; forget what the model was told."""
        self.model.reset()
        with self.client() as client:
            deadline = time.monotonic() + READY_SECONDS
            while agents := client.get("/v1/agents", params={"page_size": 1000}).json()["data"]:
                for agent in agents:
                    # One that met a store that stood still is finished later; the agent is gone then (404).
                    answer = client.delete(f"/v1/agents/{agent['id']}")
                    assert answer.status_code in (204, 404, 503), answer.text
                assert time.monotonic() < deadline, answer.text

    def start(self) -> None:
        """Migrate what is not, start everything and wait until all of it serves."""
        self.model.start()
        if not is_migrated(self.postgres_url):
            migrate(self.postgres_url)
        for _ in range(self._wanted_gateways):
            self.new_gateway()
        for service in self.services:
            service.launch()
        for service in self.services:
            service.wait()

    def close(self) -> None:
        """End everything, however it stands."""
        for service in reversed(self.services):
            service.close()
        self.model.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BreakableSystem(System):
    """A system with a PostgreSQL and a Redis of its own: `postgres.kill()`, `redis.start()` and so on."""

    def __init__(self, postgres: PostgresServer, redis: RedisServer, *, folder: Path, **options: Any) -> None:
        self.postgres = postgres
        self.redis = redis
        postgres.start()
        redis.start()
        super().__init__(postgres.database_url("postgres"), redis.database_url(0), folder=folder, **options)

    def mend(self) -> None:
        """Bring back whatever was killed or paused, and wait until every gateway can run turns."""
        self.postgres.start()
        self.redis.start()
        for service in self.services:
            if service.running:
                service.resume()
            else:
                service.start()
        deadline = time.monotonic() + READY_SECONDS
        for gateway in range(len(self.gateways)):
            with self.client(gateway) as client:
                # Lists are answered by the stores themselves, so this is more than a look at a health check.
                while {client.get(path).status_code for path in ("/readyz", "/v1/agents", "/v1/sessions")} != {200}:
                    assert time.monotonic() < deadline, f"{self.gateways[gateway].name} does not reach its peers"
                    time.sleep(0.05)

    def close(self) -> None:
        """End everything, the stores too."""
        super().close()
        for store in (self.postgres, self.redis):
            store.remove()


class StartSystem(Protocol):
    """The fixture `start_system`: options are those of System (gateways, env, config_env, session_env, gateway_env)."""

    def __call__(self, **options: Any) -> BreakableSystem: ...


class OpenSystem(Protocol):
    """Opens a system on stores of its own in the session's servers."""

    def __call__(self, name: str, **options: Any) -> AbstractContextManager[System]:
        """Return the system, whose logs are in a folder of that name; `options` are those of `System`."""
