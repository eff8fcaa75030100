"""The services as real child processes, which tests kill, pause and start again."""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from parley_cli.processes.child import Child
from parley_cli.processes.ports import LOOPBACK
from parley_cli.processes.readiness import grpc_serves
from parley_client import Tls
from tests.servers.ports import free_port
from tests.servers.prefork import PreforkedChild

READY_SECONDS = 120.0
STOP_SECONDS = 60.0
CODE = ("libs", "services")
EDGE_CERTIFICATE = "PARLEY_GATEWAY_EDGE_CERT_FILE"
PREFIXES = {"config_svc": "PARLEY_CONFIG_", "session_svc": "PARLEY_SESSION_", "chat_gateway": "PARLEY_GATEWAY_"}


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without any setting of Parley but `extra`."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PARLEY_")} | dict(extra)


def wait_until_ended(pids: Iterable[int], timeout: float = STOP_SECONDS) -> None:
    """Wait until no process has one of these ids; a zombie that nobody reaps has ended too."""
    left = set(pids)
    deadline = time.monotonic() + timeout
    while left := {pid for pid in left if _runs(pid)}:
        assert time.monotonic() < deadline, f"still running: {[psutil.Process(pid).cmdline() for pid in left]}"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def code_of(checkout: Path | None) -> dict[str, str]:
    """Return the environment that makes services run another checkout's code (it comes before what is installed)."""
    return {} if checkout is None else {"PYTHONPATH": os.pathsep.join(str(checkout / part) for part in CODE)}


class ServiceProcess:
    """One service, `python -m MODULE`, on ports of its own that stay the same for its life.

    `env` holds settings by their full names; a port that it names is used, every other is a free one.
    `sources` is another checkout, whose code it runs. Use it as a context manager, or call `start` and `close`.
    """

    def __init__(
        self,
        module: str,
        env: Mapping[str, str],
        *,
        logs: Path,
        name: str | None = None,
        sources: Path | None = None,
    ) -> None:
        prefix = PREFIXES[module]
        ports = {f"{prefix}GRPC_PORT": str(free_port())}
        if module == "chat_gateway":
            ports[f"{prefix}HTTP_PORT"] = str(free_port())
        self.settings = ports | dict(env)
        self.module = module
        self.name = name or module
        self.grpc_target = f"{LOOPBACK}:{self.settings[f'{prefix}GRPC_PORT']}"
        self.http_url = f"http://{LOOPBACK}:{self.settings.get(f'{prefix}HTTP_PORT', 0)}"
        self.log = logs / f"{self.name}.log"
        self._argv = [sys.executable, "-m", module]
        self._child = self._make_child(code_of(sources))

    def _make_child(self, extra: Mapping[str, str]) -> Child:
        environment = clean_environment(self.settings) | dict(extra)
        if all(name.startswith("PARLEY_") for name in (*self.settings, *extra)):
            return PreforkedChild(self.name, self.module, log=self.log, env=environment, directory=self.log.parent)
        # Other variables are read by Python and libraries when they start.
        return Child(self.name, self._argv, log=self.log, env=environment, directory=self.log.parent)

    @property
    def pid(self) -> int:
        """Process id of the service itself."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the process runs (a paused one does)."""
        return self._child.running

    def start(self, timeout: float = READY_SECONDS) -> None:
        """Start and wait until the service's own health check says that it serves."""
        self.launch()
        self.wait(timeout)

    def launch(self) -> None:
        """Start without waiting."""
        self._child.start()

    def wait(self, timeout: float = READY_SECONDS) -> None:
        """Wait until it serves; raises ChildDied or NotReady, with the last line of the log."""
        self._child.wait_until(self.serves, timeout)

    def serves(self) -> bool:
        """Whether the health check says SERVING now."""
        return grpc_serves(self.grpc_target, tls=self._tls())

    def _tls(self) -> Tls | None:
        """Return the service's own certificates, with which it tells its health where it speaks mutual TLS."""
        ca, certificate, key = (self.settings.get(f"PARLEY_TLS_{part}_FILE") for part in ("CA", "CERT", "KEY"))
        if self.module == "chat_gateway":
            return Tls(ca) if EDGE_CERTIFICATE in self.settings else None
        return Tls(ca, certificate, key) if ca else None

    def stop(self) -> None:
        """End it by SIGTERM; it must drain and leave with exit code 0."""
        code = self._child.stop(STOP_SECONDS)
        assert code == 0, f"{self.name} left with exit code {code}: {self.log.read_text()[-2000:]}"

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._child.kill()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): its sockets stay open, and nothing answers."""
        self._child.pause()

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._child.resume()

    def restart(self) -> None:
        """Start it again on the same ports, after a clean stop if it runs."""
        if self.running:
            self.stop()
        self.start()

    def upgrade(self) -> None:
        """Have the next start, after an end, run this checkout's code."""
        assert not self.running
        self._child = self._make_child({})

    def close(self) -> None:
        """End it, however it stands."""
        if self.running:
            self.kill()

    def __enter__(self) -> "ServiceProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
