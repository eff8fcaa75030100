"""The schema versions of this code and of a database, without Alembic, which costs 9 MB of memory."""

from functools import cache
from importlib.resources import files

from sqlalchemy import Connection, text

from servicekit.errors import StartupError

VERSION_TABLE = "config_schema_version"

_SERVES = "serves "
"""A migration that removes something records that in the comment of the version's table: `serves 0003` means that only
releases written for 0003 or later run on it. Expanding migrations leave the comment as it is."""


@cache
def known_versions() -> tuple[str, ...]:
    """Returns the versions that this release can make, oldest first: what the migrations' files begin with."""
    names = (entry.name for entry in files("config_svc.postgres.migrations.versions").iterdir())
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


def oldest_served(connection: Connection) -> str | None:
    """Returns the oldest version whose releases still run on this database, None when no migration has said so."""
    comment = connection.execute(
        text(f"SELECT obj_description(to_regclass('{VERSION_TABLE}'), 'pg_class')")
    ).scalar_one()
    return comment.removeprefix(_SERVES) if comment is not None and comment.startswith(_SERVES) else None


def require_usable(version: str | None, oldest: str | None = None) -> None:
    """Raises StartupError for a database that lacks something that this code needs.

    A version that this release does not know was made by a newer one, and is served: migrations expand, so that the
    previous release keeps running during a rollout. Only one that records (`oldest_served`) that it removed something
    this release needs is refused.
    """
    if version is None or (version != newest_version() and version in known_versions()):
        raise StartupError(
            f"the database's schema is at {version or 'nothing'}, this release needs {newest_version()}: "
            "run `python -m config_svc migrate`"
        )
    if oldest is not None and oldest > newest_version():
        raise StartupError(
            f"the database's schema is at {version} and serves releases for {oldest} and later, "
            f"this one is for {newest_version()}"
        )


def require_known(version: str | None) -> None:
    """Raises StartupError for a version that only a newer release can migrate."""
    if version is not None and version not in known_versions():
        raise StartupError(f"the database is at schema version {version}, which is newer than this release")
