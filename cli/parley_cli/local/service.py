"""One of Parley's services as a part of the local system."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from parley_cli.errors import PortTaken
from parley_cli.processes.child import Child
from parley_cli.processes.ports import LOOPBACK, is_free
from parley_cli.processes.readiness import grpc_serves, http_answers

NO_PROXY = "127.0.0.1,localhost"


def service_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Returns this process's environment with `settings`, and with no proxy between parts of one machine."""
    environment = {**os.environ, **settings}
    for name in ("no_proxy", "NO_PROXY"):
        environment[name] = ",".join(filter(None, [os.environ.get(name), NO_PROXY]))
    return environment


class Service:
    """`python -m MODULE` on given ports; ready when its gRPC health check says SERVING, and its HTTP API answers.

    `ports` are keyed by the name of the setting that moves them: the gRPC port, then the HTTP port if it has one.
    """

    ready_seconds = 60.0

    def __init__(self, name: str, module: str, *, ports: Mapping[str, int], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._ports = dict(ports)
        self._grpc_port, *self._http_ports = ports.values()
        self._target = f"{LOOPBACK}:{self._grpc_port}"
        settings = {**env, **{setting: str(port) for setting, port in self._ports.items()}}
        self._child = Child(name, [sys.executable, "-m", module], log=log, env=service_environment(settings))

    @property
    def child(self) -> Child | None:
        """The process."""
        return self._child

    @property
    def target(self) -> str:
        """Its gRPC address."""
        return self._target

    @property
    def address(self) -> str:
        """Its ports as people read them, HTTP first."""
        return ", ".join([*(f"http {port}" for port in self._http_ports), f"grpc {self._grpc_port}"])

    def check_ports(self) -> None:
        """Raises PortTaken, with the setting that moves it, for a port that another process listens on."""
        for setting, port in self._ports.items():
            if not is_free(port):
                raise PortTaken(self.name, port, setting)

    def launch(self) -> None:
        """Starts without waiting; raises PortTaken."""
        self.check_ports()
        self._child.start()

    def ready(self) -> bool:
        """Returns whether it serves."""
        return grpc_serves(self._target) and all(
            http_answers(f"http://{LOOPBACK}:{port}/livez") for port in self._http_ports
        )
