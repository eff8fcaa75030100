"""The environment of config_svc (prefix PARLEY_CONFIG_)."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from access.settings import AccessSettings
from servicekit.environment import Secret, between
from servicekit.settings import Port

DRIVER = "postgresql+psycopg"
SHORTEST_SECRET = 32


class ConfigSettings(AccessSettings):
    """Settings of one config_svc process.

    `database_url` is SQLAlchemy's (`postgresql+psycopg://…`; `postgresql://` means the same). Durations are seconds or
    ISO 8601. A deleted agent config can be undeleted for `deleted_retention`; a watch can be resumed for
    `feed_retention`, and over at most `feed_keep` changes. A watch that falls more than `watch_buffer` changes behind
    is cut off. API keys are kept for `ended_key_retention` after their end, audit events for
    `audit_retention`. A database that has not answered after `database_timeout` seconds counts as away.

    A project has at most `max_api_keys` keys that have not ended.

    API keys are stored hashed under `key_secret`, or the content of `key_secret_file`: one secret, or several with
    spaces or lines between them, of at least 32 bytes each. New keys are hashed under the first; keys that were
    hashed under another one are hashed anew when they are used. Without a secret, one is made and kept in the database.
    """

    prefix = "PARLEY_CONFIG_"

    grpc_port: Port = 50052
    database_url: Secret = Secret("")
    database_pool_size: Annotated[int, Meta(ge=1, le=100)] = 8
    database_timeout: Annotated[float, Meta(gt=0, le=60)] = 3.0
    deleted_retention: timedelta = timedelta(days=30)
    feed_retention: timedelta = timedelta(days=7)
    feed_keep: Annotated[int, Meta(ge=1)] = 100_000
    feed_poll: Annotated[float, Meta(gt=0, le=60)] = 1.0
    watch_buffer: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    ended_key_retention: timedelta = timedelta(days=90)
    audit_retention: timedelta = timedelta(days=400)
    max_api_keys: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    key_secret: Secret = Secret("")
    key_secret_file: Path | None = None
    sweep_interval: Annotated[float, Meta(gt=0, le=86400)] = 60.0

    @property
    def key_secrets(self) -> tuple[bytes, ...]:
        """The secrets that API keys are hashed under, the newest first; none when none is set."""
        if self.key_secret_file is not None:
            return tuple(self.key_secret_file.read_bytes().split())
        return tuple(self.key_secret.reveal().encode().split())

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL with the driver named."""
        return make_url(self.database_url.reveal()).set(drivername=DRIVER).render_as_string(hide_password=False)

    def problems(self) -> Iterator[str]:
        """Yields what is wrong with the settings together."""
        yield from super().problems()
        yield from self._wrong_url()
        yield from self._wrong_secrets()
        none, day = timedelta(0), timedelta(days=1)
        yield from between("PARLEY_CONFIG_DELETED_RETENTION", self.deleted_retention, none, 3650 * day)
        yield from between("PARLEY_CONFIG_FEED_RETENTION", self.feed_retention, none, 3650 * day)
        yield from between("PARLEY_CONFIG_ENDED_KEY_RETENTION", self.ended_key_retention, none, 3650 * day)
        yield from between("PARLEY_CONFIG_AUDIT_RETENTION", self.audit_retention, day, 36500 * day)

    def _wrong_secrets(self) -> Iterator[str]:
        if self.key_secret.reveal() and self.key_secret_file is not None:
            yield "PARLEY_CONFIG_KEY_SECRET and PARLEY_CONFIG_KEY_SECRET_FILE can't both be set"
        try:
            secrets = self.key_secrets
        except OSError as error:
            yield f"PARLEY_CONFIG_KEY_SECRET_FILE can't be read: {error.strerror}"
            return
        if self.key_secret_file is not None and not secrets:
            yield "PARLEY_CONFIG_KEY_SECRET_FILE holds no secret"
        if any(len(secret) < SHORTEST_SECRET for secret in secrets):
            yield f"each secret for API keys must have at least {SHORTEST_SECRET} bytes"

    def _wrong_url(self) -> Iterator[str]:
        given = self.database_url.reveal()
        example = f"{DRIVER}://user:password@host:5432/parley"
        if not given:
            yield f"PARLEY_CONFIG_DATABASE_URL: is required, such as {example}"
            return
        try:
            url = make_url(given)
        except ArgumentError:
            yield f"PARLEY_CONFIG_DATABASE_URL: must be a URL such as {example}"
            return
        if url.drivername not in (DRIVER, "postgresql", "postgres"):
            yield f"PARLEY_CONFIG_DATABASE_URL: must begin with {DRIVER}://"
