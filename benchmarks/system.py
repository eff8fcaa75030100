"""The system under measurement, as child processes: stores, mock model, the three services."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import httpx
import msgspec
import psycopg

from benchmarks.conversation import INSTRUCTIONS, Profile
from benchmarks.driver import Plan, Result
from parley_cli.embedded.postgres import EmbeddedPostgres
from parley_cli.embedded.redis import EmbeddedRedis
from parley_cli.local.service import service_environment
from parley_cli.processes.child import Child
from parley_cli.processes.ports import LOOPBACK, free_port

ROOT = Path(__file__).resolve().parent.parent
CODE_FOLDERS = ("libs", "services", "cli")
NOT_IN_IMAGES = ROOT / "benchmarks/not_in_images"
READY_SECONDS = 60.0
READY_UNDER_SECONDS = 240.0
_READY = b'"event": "ready"'


class BenchmarkFailed(Exception):
    """A measurement that can't be trusted: a wrong prompt, a failed turn, a part that does not start."""


class MockProcess:
    """The mock model in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "benchmarks.mock_model", "--port", str(self.port)]
        self._child = Child("mock model", command, log=folder / "mock.log", directory=ROOT)
        self._http = httpx.Client(base_url=f"http://{LOOPBACK}:{self.port}", trust_env=False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def start(self) -> None:
        """Starts, and waits until it listens."""
        self._child.start()
        self._child.wait_until(lambda: bool(self._child.log.read_bytes()), READY_SECONDS)

    def reset(self) -> None:
        """Forget what was seen."""
        self._http.post("/_reset").raise_for_status()

    def log(self) -> dict[str, Any]:
        """Returns what was seen: `calls`, `streamed`, `faults`, `first_fault`."""
        seen: dict[str, Any] = self._http.get("/_log").raise_for_status().json()
        return seen

    def check(self) -> None:
        """Raises `BenchmarkFailed` when a prompt was not exactly its session's."""
        seen = self.log()
        if seen["faults"]:
            raise BenchmarkFailed(f"{seen['faults']} of {seen['calls']} prompts are wrong: {seen['first_fault']}")

    def close(self) -> None:
        """Ends the process."""
        self._http.close()
        self._child.stop()


class ToolsProcess:
    """An MCP server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.url_port = free_port()
        command = [sys.executable, "-m", "benchmarks.mock_tools", "--port", str(self.url_port)]
        self._child = Child("mock tools", command, log=folder / "tools.log", directory=ROOT)

    @property
    def url(self) -> str:
        """Where it speaks MCP."""
        return f"http://{LOOPBACK}:{self.url_port}/mcp"

    def start(self) -> None:
        """Starts, and waits until it answers."""
        self._child.start()
        self._child.wait_until(self._answers, READY_SECONDS)

    def close(self) -> None:
        """Ends the process."""
        self._child.stop()

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.url_port), timeout=1):
                return True
        except OSError:
            return False


class ServiceProcess:
    """`python -m MODULE` on the code of one source tree, `under` another program where one is given.

    Knows how long it took to start.
    """

    def __init__(
        self, module: str, settings: Mapping[str, str], *, code: Path, log: Path, under: Sequence[str] = ()
    ) -> None:
        path = os.pathsep.join(map(str, [NOT_IN_IMAGES, *(code / folder for folder in CODE_FOLDERS)]))
        environment = service_environment({**settings, "PYTHONPATH": path})
        command = [*under, sys.executable, "-m", module]
        self._child = Child(module, command, log=log, env=environment, directory=log.parent)
        self._ready_seconds = READY_UNDER_SECONDS if under else READY_SECONDS
        self.start_seconds: list[float] = []

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def start(self) -> None:
        """Starts, and waits for its ready line."""
        self._child.log.unlink(missing_ok=True)
        begin = time.perf_counter()
        self._child.start()
        while _READY not in self._child.log.read_bytes():
            if not self._child.running:
                raise self._child.died()
            if time.perf_counter() - begin > self._ready_seconds:
                raise BenchmarkFailed(f"{self._child.name} was not ready in {self._ready_seconds:g} s")
            time.sleep(0.005)
        self.start_seconds.append(time.perf_counter() - begin)

    def stop(self) -> None:
        """Ends it, if it was started."""
        if self._child.running:
            self._child.stop()


class Stores:
    """One PostgreSQL and any number of Valkeys, empty, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.postgres = EmbeddedPostgres(folder / "postgres")
        self._redis: list[EmbeddedRedis] = []

    def start(self) -> None:
        """Starts PostgreSQL."""
        self.postgres.start()

    def new_redis(self) -> EmbeddedRedis:
        """Starts one more Valkey."""
        redis = EmbeddedRedis(self._folder / f"redis-{len(self._redis)}")
        self._redis.append(redis)
        redis.start()
        return redis

    def close(self) -> None:
        """Ends and removes them."""
        for redis in self._redis:
            redis.remove()
        self.postgres.remove()


class System:
    """The three services of one source tree, with a Valkey of their own; a context manager.

    `under` names programs that services run under, by module; `extra` is more environment, for all of them.
    """

    def __init__(
        self,
        stores: Stores,
        mock: MockProcess,
        folder: Path,
        *,
        code: Path = ROOT,
        database: str,
        under: Mapping[str, Sequence[str]] = MappingProxyType({}),
        extra: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self.redis = stores.new_redis()
        self._database_url = stores.postgres.database_url(database)
        self._admin_url = stores.postgres.database_url("postgres").replace("+psycopg", "", 1)
        self._name = database
        self._code = code
        ports = {name: free_port() for name in ("config", "session", "gateway", "http")}
        self.http_port = ports["http"]
        providers = json.dumps({"mock": {"base_url": f"http://{LOOPBACK}:{mock.port}/v1"}})
        settings = {
            "config_svc": {
                "PARLEY_CONFIG_DATABASE_URL": self._database_url,
                "PARLEY_CONFIG_GRPC_PORT": str(ports["config"]),
            },
            "session_svc": {
                "PARLEY_SESSION_REDIS_URL": self.redis.url,
                "PARLEY_SESSION_GRPC_PORT": str(ports["session"]),
                "PARLEY_SESSION_CONFIG_TARGET": f"{LOOPBACK}:{ports['config']}",
            },
            "chat_gateway": {
                "PARLEY_GATEWAY_GRPC_PORT": str(ports["gateway"]),
                "PARLEY_GATEWAY_HTTP_PORT": str(ports["http"]),
                "PARLEY_GATEWAY_EGRESS_ALLOW": f"http://{LOOPBACK}:*",
                "PARLEY_GATEWAY_CONFIG_TARGET": f"{LOOPBACK}:{ports['config']}",
                "PARLEY_GATEWAY_SESSION_TARGET": f"{LOOPBACK}:{ports['session']}",
                "PARLEY_PROVIDERS": providers,
            },
        }
        self.services = {
            module: ServiceProcess(
                module, {**env, **extra}, code=code, log=folder / f"{module}.log", under=under.get(module, ())
            )
            for module, env in settings.items()
        }

    @property
    def pids(self) -> dict[str, int]:
        """The processes that a turn uses."""
        services = {"gateway": "chat_gateway", "session_svc": "session_svc"}
        return {name: self.services[module].pid for name, module in services.items()} | {"redis": self.redis.pid}

    def start(self, starts: int = 1) -> None:
        """Starts the services one after the other, each `starts` times, to know how long that takes."""
        self._migrate()
        for service in self.services.values():
            for _ in range(starts - 1):
                service.start()
                service.stop()
            service.start()

    def create_tool_server(self, tool_server_id: str, url: str) -> None:
        """Creates a tool server that speaks MCP. Raises `BenchmarkFailed`."""
        body = {"id": tool_server_id, "mcp": {"url": url}}
        answer = httpx.post(f"http://{LOOPBACK}:{self.http_port}/v1/tool_servers", json=body, trust_env=False)
        if answer.status_code != 201:
            raise BenchmarkFailed(f"cannot create the tool server {tool_server_id}: {answer.text}")

    def create_agent(self, agent_id: str, profile: Profile, max_messages: int, **more: Any) -> None:
        """Creates an agent of the mock model; `more` goes into its config. Raises `BenchmarkFailed`."""
        body = {
            "id": agent_id,
            "template_id": "assistant",
            "instructions": INSTRUCTIONS,
            "model": {"provider": "mock", "name": profile.name},
            "memory": {"max_messages": max_messages},
            **more,
        }
        deadline = time.monotonic() + READY_SECONDS
        while True:
            answer = httpx.post(f"http://{LOOPBACK}:{self.http_port}/v1/agents", json=body, trust_env=False)
            if answer.status_code == 201:
                return
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"cannot create the agent {agent_id}: {answer.text}")
            time.sleep(0.1)  # the gateway publishes its templates after it is ready

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for service in reversed(self.services.values()):
            service.stop()

    def _migrate(self) -> None:
        with psycopg.connect(self._admin_url, autocommit=True) as admin:
            admin.execute(f'CREATE DATABASE "{self._name}"'.encode())
        path = os.pathsep.join(str(self._code / folder) for folder in CODE_FOLDERS)
        environment = service_environment({"PARLEY_CONFIG_DATABASE_URL": self._database_url, "PYTHONPATH": path})
        done = subprocess.run(
            [sys.executable, "-m", "config_svc", "migrate"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
            check=False,
        )
        if done.returncode:
            raise BenchmarkFailed(f"config_svc migrate: {done.stderr}")


def drive(plan: Plan) -> list[Result]:
    """Runs a plan in a driver process of its own. Raises `BenchmarkFailed`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.driver"],
        input=msgspec.json.encode(plan),
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    if done.returncode:
        raise BenchmarkFailed(done.stderr.decode().strip())
    return msgspec.json.decode(done.stdout, type=list[Result])
