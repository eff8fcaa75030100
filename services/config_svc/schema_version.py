"""Which version of the schema this code needs, and which one a database has. Without Alembic, which costs 9 MB."""

from functools import cache
from importlib.resources import files

from sqlalchemy import Connection, text

from servicekit.errors import StartupError

VERSION_TABLE = "config_schema_version"


@cache
def known_versions() -> tuple[str, ...]:
    """Returns the versions that this release can make, oldest first: what the migrations' files begin with."""
    names = (entry.name for entry in files("config_svc.migrations.versions").iterdir())
    return tuple(sorted(name.partition("_")[0] for name in names if name[:4].isdecimal() and name.endswith(".py")))


def newest_version() -> str:
    """Returns the version that this code was written for."""
    return known_versions()[-1]


def current_version(connection: Connection) -> str | None:
    """Returns the version that the database is at, None when it was never migrated."""
    if connection.execute(text(f"SELECT to_regclass('{VERSION_TABLE}')")).scalar_one() is None:
        return None
    version: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()
    return version


def require_usable(version: str | None) -> None:
    """Raises StartupError for a database that lacks something that this code needs.

    A version that this release does not know was made by a newer one, which keeps what this one needs.
    """
    if version is None or (version != newest_version() and version in known_versions()):
        raise StartupError(
            f"the database's schema is at {version or 'nothing'}, this release needs {newest_version()}: "
            "run `python -m config_svc migrate`"
        )


def require_known(version: str | None) -> None:
    """Raises StartupError for a version that only a newer release knows how to go on from."""
    if version is not None and version not in known_versions():
        raise StartupError(f"the database is at schema version {version}, which is newer than this release")
