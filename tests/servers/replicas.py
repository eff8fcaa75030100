"""Two replicas of each service on stores of their own, each reached by the others through a list of addresses."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from config_svc.postgres.migrate import migrate
from tests.servers.mock_model import MockModel
from tests.servers.processes import ServiceProcess
from tests.servers.system import PATIENT_CONFIG, PATIENT_GATEWAY, PROVIDER


class Replicas:
    """The replicas by kind; `services` is all of them in the order in which they depend on each other.

    `sources` makes a replica run the code of another checkout: by its name, such as `session_svc-1`.
    """

    def __init__(
        self,
        postgres_url: str,
        redis_url: str,
        model: MockModel,
        *,
        folder: Path,
        each: int = 2,
        env: Mapping[str, str] | None = None,
        sources: Mapping[str, Path] | None = None,
    ) -> None:
        self._folder = folder
        self._env = env or {}
        self._sources = sources or {}
        self.postgres_url = postgres_url
        self.configs = self._make("config_svc", each, {**PATIENT_CONFIG, "PARLEY_CONFIG_DATABASE_URL": postgres_url})
        config_target = targets(self.configs)
        self.sessions = self._make(
            "session_svc",
            each,
            {"PARLEY_SESSION_REDIS_URL": redis_url, "PARLEY_SESSION_CONFIG_TARGET": config_target},
        )
        self.gateways = self._make(
            "chat_gateway",
            each,
            {
                **PATIENT_GATEWAY,
                "PARLEY_GATEWAY_CONFIG_TARGET": config_target,
                "PARLEY_GATEWAY_SESSION_TARGET": targets(self.sessions),
                "PARLEY_PROVIDERS": json.dumps({PROVIDER: {"base_url": model.url}}),
            },
        )

    @property
    def services(self) -> list[ServiceProcess]:
        """Every process."""
        return [*self.configs, *self.sessions, *self.gateways]

    @contextmanager
    def running(self) -> Iterator["Replicas"]:
        """Migrate, start everything, and end it at the end."""
        migrate(self.postgres_url)
        try:
            for service in self.services:
                service.launch()
            for service in self.services:
                service.wait()
            yield self
        finally:
            for service in reversed(self.services):
                service.close()

    def _make(self, module: str, number: int, env: Mapping[str, str]) -> list[ServiceProcess]:
        names = [f"{module}-{n + 1}" for n in range(number)]
        return [
            ServiceProcess(module, {**env, **self._env}, logs=self._folder, name=name, sources=self._sources.get(name))
            for name in names
        ]


def targets(services: list[ServiceProcess]) -> str:
    """Return the gRPC addresses of replicas as one target."""
    return ",".join(service.grpc_target for service in services)
