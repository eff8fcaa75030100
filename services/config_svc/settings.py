"""The environment of config_svc (prefix PARLEY_CONFIG_)."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from access.settings import AccessSettings
from servicekit.files import read_regular_file
from servicekit.settings import Duration, Port, Seconds, variables_after

DRIVER = "postgresql+psycopg"
MIN_SECRET = 32
_MAX_SECRET_FILE_BYTES = 64 * 1024


class ConfigSettings(AccessSettings):
    """Settings of one config_svc process, from `PARLEY_CONFIG_…`."""

    model_config = SettingsConfigDict(alias_generator=variables_after("PARLEY_CONFIG_"))

    grpc_port: Port = Field(default=50052, description="Port of the gRPC API; 0: any free one.")
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description=f"PostgreSQL, required: `{DRIVER}://user:password@host:5432/parley` (`postgresql://` means the "
        "same). Several hosts (`host:5432,other:5432`) are tried in order, for the one that takes writes; "
        "libpq's options may follow after `?`.",
    )
    database_pooling: Literal["session", "transaction"] = Field(
        default="session",
        description="What a pooler before the database (PgBouncer) shares connections by; `session` is also right "
        "without one. With `transaction`, nothing that outlives a transaction is used: no prepared statements, "
        "timeouts by `SET LOCAL`, and changes are looked for ten times a second unless "
        "`PARLEY_CONFIG_DATABASE_DIRECT_URL` is set.",
    )
    database_direct_url: SecretStr = Field(
        default=SecretStr(""),
        description="The same database past its pooler, for what needs a connection of its own: notifications of "
        "changes (two connections) and migrations, which need it where the pooler shares by transaction.",
    )
    database_pool_size: int = Field(default=8, ge=1, le=100, description="Connections to the database.")
    database_timeout: Seconds = Field(
        default=3.0, gt=0, le=60, description="How long the database may take before it counts as unavailable."
    )
    deleted_retention: Duration = Field(
        default=timedelta(days=30),
        ge=timedelta(0),
        le=timedelta(days=3650),
        description="How long a deleted agent config can be undeleted.",
    )
    feed_retention: Duration = Field(
        default=timedelta(days=7),
        ge=timedelta(0),
        le=timedelta(days=3650),
        description="How old a cursor may be from which a watch of changes is resumed.",
    )
    feed_keep: int = Field(
        default=100_000, ge=1, le=1_000_000_000, description="Changes over which a watch can be resumed."
    )
    feed_poll: Seconds = Field(
        default=1.0, gt=0, le=60, description="How often changes are looked for without a notification."
    )
    watch_buffer: int = Field(
        default=1000, ge=1, le=100_000, description="Changes that a watch may fall behind before it is ended."
    )
    ended_key_retention: Duration = Field(
        default=timedelta(days=90),
        ge=timedelta(0),
        le=timedelta(days=3650),
        description="How long API keys are kept after they were revoked or expired.",
    )
    audit_retention: Duration = Field(
        default=timedelta(days=400),
        ge=timedelta(days=1),
        le=timedelta(days=36500),
        description="How long audit events are kept.",
    )
    max_api_keys: int = Field(
        default=1000, ge=1, le=1_000_000, description="API keys of one project that are neither revoked nor expired."
    )
    key_secret: SecretStr = Field(
        default=SecretStr(""),
        description=f"Secret that API keys are hashed under, of at least {MIN_SECRET} bytes; several with spaces "
        "or lines between them. New keys are hashed under the first, others again when they are used. Without, one is "
        "made and kept in the database.",
    )
    key_secret_file: Path | None = Field(
        default=None, description="File that holds those secrets, instead of `PARLEY_CONFIG_KEY_SECRET`."
    )
    sweep_interval: Seconds = Field(
        default=60.0, gt=0, le=86400, description="How often what has outlived its retention is removed."
    )

    @property
    def key_secrets(self) -> tuple[bytes, ...]:
        """The secrets that API keys are hashed under, the newest first; none when none is set."""
        if self.key_secret_file is not None:
            return tuple(read_regular_file(self.key_secret_file, _MAX_SECRET_FILE_BYTES).split())
        return tuple(self.key_secret.get_secret_value().encode().split())

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL with the driver named."""
        return _rendered(self.database_url)

    @property
    def direct_url(self) -> str | None:
        """The URL of a database whose connections are our own, with the driver named; None: only a pooler is known."""
        if self.database_direct_url.get_secret_value():
            return _rendered(self.database_direct_url)
        return self.sqlalchemy_url if self.database_pooling == "session" else None

    def problems(self) -> Iterator[str]:
        """Yields what is wrong with the settings together."""
        yield from super().problems()
        yield from _wrong_url("PARLEY_CONFIG_DATABASE_URL", self.database_url, required=True)
        yield from _wrong_url("PARLEY_CONFIG_DATABASE_DIRECT_URL", self.database_direct_url, required=False)
        yield from self._wrong_secrets()

    def _wrong_secrets(self) -> Iterator[str]:
        if self.key_secret.get_secret_value() and self.key_secret_file is not None:
            yield "PARLEY_CONFIG_KEY_SECRET and PARLEY_CONFIG_KEY_SECRET_FILE can't both be set"
        try:
            secrets = self.key_secrets
        except OSError as error:
            yield f"PARLEY_CONFIG_KEY_SECRET_FILE can't be read: {error.strerror}"
            return
        if self.key_secret_file is not None and not secrets:
            yield "PARLEY_CONFIG_KEY_SECRET_FILE holds no secret"
        if any(len(secret) < MIN_SECRET for secret in secrets):
            yield f"each secret for API keys must have at least {MIN_SECRET} bytes"


def _wrong_url(name: str, secret: SecretStr, *, required: bool) -> Iterator[str]:
    given = secret.get_secret_value()
    example = f"{DRIVER}://user:password@host:5432/parley"
    if not given:
        if required:
            yield f"{name}: is required, such as {example}"
        return
    try:
        url = _database(given)
    except (ArgumentError, ValueError):
        yield f"{name}: must be a URL such as {example}"
        return
    if given.partition("://")[0] not in (DRIVER, "postgresql", "postgres"):
        yield f"{name}: must begin with {DRIVER}://"
    if re.search(r"\s", given):
        yield f"{name}: must not have a space in it"
    try:
        make_conninfo("", **{option: str(value) for option, value in url.query.items() if option != "host"})
    except ProgrammingError as error:
        said = str(error).splitlines()[0]
        # What it quotes may be a piece of a password, in a URL that is cut in another place than was meant.
        names = all(re.fullmatch("[a-z_]+", quoted) for quoted in re.findall('"([^"]*)"?', said))
        yield f"{name}: {said if names else 'has an option that is none of libpq'}"


def _rendered(url: SecretStr) -> str:
    return _database(url.get_secret_value()).render_as_string(hide_password=False)


def _database(url: str) -> URL:
    """Returns the URL with the driver named and each of several hosts (`host:5432,other:5432`) as SQLAlchemy has them.

    Of several, the one that takes writes is wanted unless the URL says otherwise. Raises what `make_url` does.
    """
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, names = authority.rpartition("@")
    hosts = names.split(",")
    if len(hosts) == 1:
        return make_url(url).set(drivername=DRIVER)
    if not all(hosts):
        raise ValueError("an empty host")
    parsed = make_url(f"{scheme}://{user}{at}{slash}{path}").set(drivername=DRIVER)
    several = {"host": tuple(hosts), "target_session_attrs": "read-write"}
    return parsed.set(query=several | dict(parsed.query))
