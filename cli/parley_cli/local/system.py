"""Which parts the local system has, how they are wired to each other, and in which order they start."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from parley_cli.embedded.model import MODEL_NAME, EmbeddedModel, weights
from parley_cli.embedded.postgres import EmbeddedPostgres, postgres_programs
from parley_cli.embedded.redis import EmbeddedRedis, valkey_program
from parley_cli.embedded.script import MODEL_NAME as SCRIPTED_MODEL_NAME
from parley_cli.embedded.scripted_model import ScriptedModel
from parley_cli.errors import LocalError
from parley_cli.local.data_directory import DataDirectory
from parley_cli.local.greeting import SAMPLE_TOOL_SERVER
from parley_cli.local.service import Service, service_environment
from parley_cli.local.settings import UpSettings
from parley_cli.processes.child import Child
from parley_cli.processes.ports import LOOPBACK
from parley_cli.processes.supervisor import Part, Supervisor
from parley_cli.samples import tool_server_file

SCHEMA = "schema"
MIGRATE_SECONDS = 120.0
GRPC_STEP = 100
"""The second gateway's gRPC port is the first one's plus this (50151): the ports between belong to other services."""


class LocalSystem:
    """The parts of one system in one data directory; nothing runs before `bring_up`."""

    def __init__(self, data: DataDirectory, settings: UpSettings, gateways: int) -> None:
        self._data = data
        self._settings = settings
        self.supervisor = Supervisor()
        self.postgres = EmbeddedPostgres(
            data.path / "postgres",
            port=data.port_for("postgres", settings.up_postgres_port),
            log=data.log("postgres"),
            port_setting="PARLEY_UP_POSTGRES_PORT",
        )
        self.redis = EmbeddedRedis(
            data.path / "redis",
            port=data.port_for("redis", settings.up_redis_port),
            log=data.log("redis"),
            port_setting="PARLEY_UP_REDIS_PORT",
        )
        self.model: EmbeddedModel | None = None
        self.scripted: ScriptedModel | None = None
        if settings.providers is None:
            self.model = self._local_model()
            self.scripted = ScriptedModel(data.port_for("scripted", None))
        self.config = self._config()
        self.session = self._session()
        self._gateway_count = gateways
        self.gateways = [self._gateway(number) for number in range(gateways)]

    @property
    def http_url(self) -> str:
        """Address of the first gateway's HTTP API."""
        return f"http://{LOOPBACK}:{self._settings.gateway_http_port}"

    @property
    def grpc_target(self) -> str:
        """Address of the first gateway's gRPC API."""
        return self.gateways[0].target

    @property
    def addresses(self) -> dict[str, str]:
        """Where each part listens, for people."""
        parts: dict[str, str] = {"postgres": f"port {self.postgres.port}", "redis": f"port {self.redis.port}"}
        if self.model is not None:
            parts["model"] = f"http {self.model.port}"
        return parts | {service.name: service.address for service in self._services}

    @property
    def stages(self) -> Sequence[str]:
        """What `bring_up` reports, in about that order."""
        return [part.name for part in self._stores] + [SCHEMA] + [service.name for service in self._services]

    def bring_up(self, on_ready: Callable[[str], None]) -> None:
        """Starts everything, and waits until it serves, reporting what is ready; raises LocalError.

        What is missing, and ports that are taken, are found before anything starts.
        """
        self._check()
        self.supervisor.start(self._stores, on_ready)
        self._migrate()
        on_ready(SCHEMA)
        if self.scripted is not None:
            self.scripted.start()
        self.supervisor.start(self._services, on_ready)

    def take_down(self, on_stopping: Callable[[str], None], hurried: Callable[[], bool]) -> list[str]:
        """Stops everything, as `Supervisor.stop` does."""
        complaints = self.supervisor.stop(on_stopping, hurried)
        if self.scripted is not None:
            self.scripted.stop()
        return complaints

    @property
    def _stores(self) -> list[Part]:
        return [self.postgres, self.redis, *([self.model] if self.model is not None else [])]

    @property
    def _services(self) -> list[Service]:
        return [self.config, self.session, *self.gateways]

    def describe(self, phase: str) -> dict[str, Any]:
        """Returns the state for `parley status`, without any secret."""
        parts = [
            {
                "name": part.name,
                "pid": part.child.pid,
                "address": self.addresses[part.name],
                "log": str(part.child.log),
            }
            for part in self.supervisor.parts
            if part.child is not None and part.child.running
        ]
        return {
            "phase": phase,
            "http_url": self.http_url,
            "grpc_target": self.grpc_target,
            "note": self.postgres.note,
            "parts": parts,
        }

    def _check(self) -> None:
        postgres_programs()
        valkey_program()
        if self.model is not None:
            weights()
        for service in self._services:
            service.check_ports()

    def _migrate(self) -> None:
        """Bring the database to config_svc's schema; raises LocalError with the last line of its log."""
        child = Child(
            "migrate",
            [sys.executable, "-m", "config_svc", "migrate"],
            log=self._data.log("migrate"),
            env=service_environment({"PARLEY_CONFIG_DATABASE_URL": self.postgres.url}),
        )
        child.start()
        if child.wait(MIGRATE_SECONDS) != 0:
            raise child.died()

    def _local_model(self) -> EmbeddedModel:
        return EmbeddedModel(
            self._data.path,
            port=self._data.port_for("model", self._settings.up_model_port),
            log=self._data.log("model"),
            port_setting="PARLEY_UP_MODEL_PORT",
        )

    def _config(self) -> Service:
        return Service(
            "config_svc",
            "config_svc",
            ports={"PARLEY_CONFIG_GRPC_PORT": self._settings.config_grpc_port},
            env={"PARLEY_CONFIG_DATABASE_URL": self.postgres.url},
            log=self._data.log("config_svc"),
        )

    def _session(self) -> Service:
        return Service(
            "session_svc",
            "session_svc",
            ports={"PARLEY_SESSION_GRPC_PORT": self._settings.session_grpc_port},
            env={"PARLEY_SESSION_REDIS_URL": self.redis.url, "PARLEY_SESSION_CONFIG_TARGET": self.config.target},
            log=self._data.log("session_svc"),
        )

    def _gateway(self, number: int) -> Service:
        grpc_port = self._settings.gateway_grpc_port + (GRPC_STEP + number - 1 if number else 0)
        http_port = self._settings.gateway_http_port + number
        if max(grpc_port, http_port) > 65535:
            raise LocalError(f"gateway {number + 1} would need a port beyond 65535; lower PARLEY_GATEWAY_*_PORT")
        name = f"gateway-{number + 1}"
        return Service(
            name,
            "chat_gateway",
            ports={"PARLEY_GATEWAY_GRPC_PORT": grpc_port, "PARLEY_GATEWAY_HTTP_PORT": http_port},
            env={
                "PARLEY_GATEWAY_CONFIG_TARGET": self.config.target,
                "PARLEY_GATEWAY_SESSION_TARGET": self.session.target,
                "PARLEY_PROVIDERS": self._providers(),
                "PARLEY_TOOL_SERVERS": self._tool_servers(),
                "PARLEY_GATEWAY_REPLICAS": ",".join(self._gateway_urls()),
            },
            log=self._data.log(name),
        )

    def _gateway_urls(self) -> list[str]:
        first = self._settings.gateway_http_port
        return [f"http://{LOOPBACK}:{first + number}" for number in range(self._gateway_count)]

    def _providers(self) -> str:
        if self.model is None or self.scripted is None:
            return json.dumps(self._settings.providers)
        providers = {
            self.model.provider: {"base_url": self.model.url, "models": [MODEL_NAME]},
            self.scripted.provider: {"base_url": self.scripted.url, "models": [SCRIPTED_MODEL_NAME]},
        }
        return json.dumps(providers)

    def _tool_servers(self) -> str:
        """Returns the tool servers of the user, and the sample, which a gateway starts when a turn needs it."""
        servers = dict(self._settings.tool_servers)
        if self.scripted is not None:
            servers.setdefault(SAMPLE_TOOL_SERVER, {"command": sys.executable, "args": [str(tool_server_file())]})
        return json.dumps(servers)
