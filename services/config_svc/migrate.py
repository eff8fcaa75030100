"""The schema's state, and the command that brings it to the newest one. A server start never migrates."""

import logging
import sys
import time
from functools import cache

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import ValidationError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from config_svc.settings import ConfigSettings
from servicekit.errors import StartupError

VERSION_TABLE = "config_schema_version"
DEFAULT_WAIT = 60.0

_LOCK = "pg_try_advisory_lock(hashtextextended('parley/config/migrate', 0))"
_RETRY_SECONDS = 0.2


def migrate(url: str, wait: float = DEFAULT_WAIT) -> tuple[str | None, str]:
    """Brings the schema to the newest version, alone: others wait for their turn. Returns the version before and after.

    Waits at most `wait` seconds for the database to answer, and for another migration to end. Idempotent; each
    migration is one transaction. Raises StartupError.
    """
    deadline = time.monotonic() + wait
    engine = create_engine(url, connect_args={"connect_timeout": 2})
    try:
        with _connected(engine, deadline) as connection:
            _take_turn(connection, deadline)
            before = schema_version(connection)
            refuse_unless_known(before)
            config = _config()
            config.attributes.update(connection=connection, version_table=VERSION_TABLE)
            connection.commit()
            command.upgrade(config, "head")
            connection.commit()
            return before, head()
    except DBAPIError as error:
        raise StartupError(f"the migration failed: {_first_line(error)}") from error
    finally:
        engine.dispose()


@cache
def head() -> str:
    """Returns the version of the schema that this code was written for."""
    newest = _scripts().get_current_head()
    if newest is None:
        raise StartupError("this installation has no migrations")
    return newest


def is_older(version: str | None) -> bool:
    """Tells whether a database at `version` lacks something that this code needs.

    A version that this code does not know was made by a newer release, which keeps what this one needs.
    """
    return version is None or (version != head() and version in _known())


def refuse_unless_known(version: str | None) -> None:
    """Raises StartupError for a version that only a newer release knows how to go on from."""
    if version is not None and version not in _known():
        raise StartupError(f"the database is at schema version {version}, which is newer than this release")


def schema_version(connection: Connection) -> str | None:
    """Returns the version that the database is at, None when it was never migrated."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def main(arguments: list[str]) -> None:
    """Runs `migrate [--wait SECONDS]`: prints what was done and exits with 0, or with 1 and one line that says why."""
    logging.basicConfig(level=logging.WARNING)
    try:
        wait = _wait_of(arguments)
        before, after = migrate(ConfigSettings().database_url.get_secret_value(), wait)
    except ValidationError as error:
        names = ", ".join(f"PARLEY_CONFIG_{str(one['loc'][0]).upper()}: {one['msg']}" for one in error.errors())
        sys.exit(f"config_svc migrate: {names}")
    except StartupError as error:
        sys.exit(f"config_svc migrate: {error}")
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


def _connected(engine: sqlalchemy.Engine, deadline: float) -> Connection:
    while True:
        try:
            return engine.connect()
        except OperationalError as error:
            if time.monotonic() >= deadline:
                raise StartupError(f"the database does not answer: {_first_line(error)}") from error
            time.sleep(_RETRY_SECONDS)


def _take_turn(connection: Connection, deadline: float) -> None:
    while not connection.execute(text(f"SELECT {_LOCK}")).scalar_one():
        if time.monotonic() >= deadline:
            raise StartupError("another migration of this database is running")
        time.sleep(_RETRY_SECONDS)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "config_svc:migrations")
    return config


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


@cache
def _known() -> frozenset[str]:
    return frozenset(script.revision for script in _scripts().walk_revisions())


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
