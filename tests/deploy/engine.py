"""The Docker engine of this machine, if it has one, and containers that a test starts and ends."""

import functools
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
STORES = ("postgres:18", "redis:8")
SERVICES = ("config_svc", "session_svc", "chat_gateway")
START_SECONDS = 180.0
POLL_SECONDS = 0.5


@functools.cache
def build_script() -> ModuleType:
    """Return deploy/images/build.py, what `make images` runs, as a module."""
    spec = importlib.util.spec_from_file_location("build_images", ROOT / "deploy" / "images" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_images"] = module
    sys.path.insert(0, str(ROOT / "deploy" / "images"))
    spec.loader.exec_module(module)
    return module


@functools.cache
def missing_engine() -> str | None:
    """Return why no image can be built here, or None."""
    client = build_script().docker_client()
    if client is None:
        return "there is no docker here"
    asked = subprocess.run([client, "info"], capture_output=True, text=True, check=False)
    if asked.returncode != 0 or "ERROR" in asked.stderr:
        return "no Docker engine answers"
    base = build_script().docker("images", "--quiet", "python:3.11-slim")
    if not base and subprocess.run([client, "pull", "python:3.11-slim"], capture_output=True, check=False).returncode:
        return "the engine has no image python:3.11-slim and can't pull it"
    return None


def docker(*arguments: str) -> str:
    """Run one Docker command; fails the test with its last words."""
    try:
        return str(build_script().docker(*arguments))
    except SystemExit as error:
        raise AssertionError(str(error)) from None


def inspect(name: str) -> dict[str, Any]:
    """Return what the engine says about an image or a container."""
    found: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return found


def logs(container: str) -> str:
    """Return the last lines that a container wrote."""
    command = [build_script().docker_client(), "logs", "--tail", "20", container]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout


class Containers:
    """Containers of one test, removed with it; on the network of `network` while that is open."""

    # Each check starts a Python: every second would take what the services need to start.
    HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--health-interval", "3s")

    def __init__(self) -> None:
        self._cleanup = ExitStack()
        self._network = "bridge"

    @contextmanager
    def network(self, name: str) -> Iterator[None]:
        """Have containers find each other by their names."""
        docker("network", "create", name)
        self._network = name
        try:
            yield
        finally:
            self._cleanup.close()
            docker("network", "rm", name)

    def start(
        self,
        image: str,
        *command: str,
        env: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
        name: str = "",
    ) -> str:
        """Start a container, which the others know by its name, and return its id."""
        settings = [flag for key, value in (env or {}).items() for flag in ("--env", f"{key}={value}")]
        where = ("--network", self._network, *(("--network-alias", name) if name else ()))
        container = docker("run", "--detach", *where, *options, *settings, image, *command)
        self._cleanup.callback(docker, "rm", "--force", "--volumes", container)
        return container

    def run(self, image: str, *command: str, env: Mapping[str, str]) -> str:
        """Run a hardened container to its end, which must be a success, and return what it printed."""
        settings = [flag for key, value in env.items() for flag in ("--env", f"{key}={value}")]
        return docker("run", "--rm", "--network", self._network, *self.HARDENED, *settings, image, *command)

    def wait_healthy(self, *containers: str) -> None:
        """Wait until the health checks of the images themselves say so."""
        for container in containers:
            wait_for(lambda c=container: inspect(c)["State"]["Health"]["Status"] == "healthy", container)  # type: ignore[misc]

    def stop(self, container: str) -> int:
        """Send SIGTERM and return the exit code; 137 is that of a container that had to be killed."""
        docker("stop", "--time", "20", container)
        return int(inspect(container)["State"]["ExitCode"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()


def wait_for(happened: Callable[[], bool], container: str) -> None:
    """Wait until something is so; fails with the container's last words."""
    deadline = time.monotonic() + START_SECONDS
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {START_SECONDS:g} s: {logs(container)}")
        time.sleep(POLL_SECONDS)


def built(tag: str) -> Iterator[dict[str, str]]:
    """Build the images of all services; yields their names and removes them afterwards."""
    names = {}
    try:
        for service in SERVICES:
            names[service] = build_script().build(service, tag=tag, revision="under test")
        yield names
    finally:
        for name in names.values():
            docker("rmi", "--force", name)
