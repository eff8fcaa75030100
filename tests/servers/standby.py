"""A hot standby of a PostgreSQL of the tests, which can be promoted."""

import shutil
import subprocess
from pathlib import Path

import psycopg

from parley_cli.embedded.passwords import password_of
from parley_cli.embedded.postgres import INITDB_SECONDS, INITIALISED, USER, EmbeddedPostgres
from parley_cli.processes.child import Identity, launch_command
from parley_cli.processes.ports import LOOPBACK


class Standby(EmbeddedPostgres):
    """A streaming copy of a running `primary`; it takes no writes until `promote`."""

    def __init__(self, data: Path, primary: EmbeddedPostgres) -> None:
        super().__init__(data, durable=False)
        self._primary = primary
        password = data.absolute().with_name(f"{data.name}.password")
        data.parent.mkdir(parents=True, exist_ok=True)
        password.write_text(password_of(primary.data))

    def promote(self) -> None:
        """Make it the primary; returns once it takes writes."""
        with self._connect("postgres") as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)

    def ready(self) -> bool:
        """Return whether it answers reads."""
        try:
            with self._connect("postgres") as connection:
                return connection.execute("SELECT pg_is_in_recovery()").fetchone() is not None
        except psycopg.OperationalError:
            return False

    def _initialise(self, programs: Path, identity: Identity) -> None:
        data = self.data.resolve()
        for leftover in data.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        source = f"host={LOOPBACK} port={self._primary.port} user={USER} password={password_of(self.data)}"
        copy = ["--pgdata", str(data), "--dbname", source, "--write-recovery-conf", "--checkpoint", "fast", "--no-sync"]
        command = launch_command(
            [str(programs / "pg_basebackup"), *copy], identity=identity, directory=data, death_signal=None
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=INITDB_SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        (data / INITIALISED).touch()
