"""The command that brings the schema to the newest version. A server start never migrates."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from config_svc.postgres.encoding import ENCODING, require_encoding
from config_svc.postgres.schema_version import VERSION_TABLE, current_version, newest_version, require_known
from config_svc.settings import ConfigSettings
from servicekit.errors import StartupError
from servicekit.settings import SettingsError

DEFAULT_WAIT = 60.0

_KEY = "hashtextextended('parley/config/migrate', 0)"
_RETRY_SECONDS = 0.2


def migrate(url: str, wait: float = DEFAULT_WAIT) -> tuple[str | None, str]:
    """Brings the schema to the newest version, alone: others wait for their turn. Returns the version before and after.

    Waits at most `wait` seconds for the database to answer, and as long for another migration to end. Idempotent; all
    migrations that are due are one transaction. Raises StartupError.
    """
    engine = create_engine(url, connect_args={"connect_timeout": 2, "client_encoding": ENCODING})
    try:
        with _connected(engine, wait) as connection, _turn(connection, wait):
            require_encoding(connection)
            before = current_version(connection)
            require_known(before)
            connection.commit()
            config = Config()
            config.set_main_option("script_location", "config_svc:postgres/migrations")
            config.attributes.update(connection=connection, version_table=VERSION_TABLE)
            command.upgrade(config, "head")
            return before, newest_version()
    except DBAPIError as error:
        raise StartupError(f"the migration failed: {_first_line(error)}") from error
    finally:
        engine.dispose()


def main(arguments: list[str]) -> None:
    """Runs `migrate [--wait SECONDS]`: prints what was done and exits with 0, or with 1 and lines that say why."""
    try:
        wait = _wait_of(arguments)
        url = ConfigSettings().direct_url
        if url is None:
            raise StartupError("migrations go past the pooler: PARLEY_CONFIG_DATABASE_DIRECT_URL is required")
        before, after = migrate(url, wait)
    except (SettingsError, StartupError) as error:
        sys.exit("\n".join(f"config_svc migrate: {line}" for line in str(error).splitlines()))
    print(f"schema is at {after}" if before == after else f"schema migrated from {before or 'nothing'} to {after}")


def _wait_of(arguments: list[str]) -> float:
    if not arguments:
        return DEFAULT_WAIT
    try:
        option, seconds = arguments
        wait = float(seconds)
    except ValueError:
        option, wait = "", -1.0
    if option != "--wait" or not 0 <= wait <= 3600:
        raise StartupError("usage: python -m config_svc migrate [--wait SECONDS]")
    return wait


def _connected(engine: sqlalchemy.Engine, wait: float) -> Connection:
    deadline = time.monotonic() + wait
    while True:
        try:
            return engine.connect()
        except OperationalError as error:
            if time.monotonic() >= deadline:
                raise StartupError(f"the database does not answer: {_first_line(error)}") from error
            time.sleep(_RETRY_SECONDS)


@contextmanager
def _turn(connection: Connection, wait: float) -> Iterator[None]:
    """Holds the migration's advisory lock, which ends with the connection at the latest."""
    deadline = time.monotonic() + wait
    while not connection.execute(text(f"SELECT pg_try_advisory_lock({_KEY})")).scalar_one():
        connection.commit()
        if time.monotonic() >= deadline:
            raise StartupError("another migration of this database is running")
        time.sleep(_RETRY_SECONDS)
    connection.commit()
    yield
    connection.execute(text(f"SELECT pg_advisory_unlock({_KEY})"))
    connection.commit()


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
