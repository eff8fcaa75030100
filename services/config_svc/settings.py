"""The environment of config_svc (prefix PARLEY_CONFIG_)."""

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from access.settings import AccessSettings

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

    model_config = SettingsConfigDict(env_prefix="PARLEY_CONFIG_")

    grpc_port: int = Field(default=50052, ge=0, le=65535)
    database_url: SecretStr = Field(default=SecretStr(""), validate_default=True)
    database_pool_size: int = Field(default=8, ge=1, le=100)
    database_timeout: float = Field(default=3.0, gt=0, le=60, allow_inf_nan=False)
    deleted_retention: timedelta = Field(default=timedelta(days=30), ge=timedelta(0), le=timedelta(days=3650))
    feed_retention: timedelta = Field(default=timedelta(days=7), ge=timedelta(0), le=timedelta(days=3650))
    feed_keep: int = Field(default=100_000, ge=1)
    feed_poll: float = Field(default=1.0, gt=0, le=60, allow_inf_nan=False)
    watch_buffer: int = Field(default=1000, ge=1, le=100_000)
    ended_key_retention: timedelta = Field(default=timedelta(days=90), ge=timedelta(0), le=timedelta(days=3650))
    audit_retention: timedelta = Field(default=timedelta(days=400), ge=timedelta(days=1), le=timedelta(days=36500))
    max_api_keys: int = Field(default=1000, ge=1, le=1_000_000)
    key_secret: SecretStr = SecretStr("")
    key_secret_file: Path | None = None
    sweep_interval: float = Field(default=60.0, gt=0, le=86400, allow_inf_nan=False)

    @property
    def key_secrets(self) -> tuple[bytes, ...]:
        """The secrets that API keys are hashed under, the newest first; none when none is set."""
        if self.key_secret_file is not None:
            return tuple(self.key_secret_file.read_bytes().split())
        return tuple(self.key_secret.get_secret_value().encode().split())

    @model_validator(mode="after")
    def _check_secrets(self) -> Self:
        if self.key_secret.get_secret_value() and self.key_secret_file is not None:
            raise ValueError("PARLEY_CONFIG_KEY_SECRET and PARLEY_CONFIG_KEY_SECRET_FILE can't both be set")
        try:
            secrets = self.key_secrets
        except OSError as error:
            raise ValueError(f"PARLEY_CONFIG_KEY_SECRET_FILE can't be read: {error.strerror}") from None
        if self.key_secret_file is not None and not secrets:
            raise ValueError("PARLEY_CONFIG_KEY_SECRET_FILE holds no secret")
        if any(len(secret) < SHORTEST_SECRET for secret in secrets):
            raise ValueError(f"each secret for API keys must have at least {SHORTEST_SECRET} bytes")
        return self

    @field_validator("database_url")
    @classmethod
    def _check_url(cls, given: SecretStr) -> SecretStr:
        if not given.get_secret_value():
            raise ValueError(f"is required, such as {DRIVER}://user:password@host:5432/parley")
        try:
            url = make_url(given.get_secret_value())
        except ArgumentError:
            raise ValueError(f"must be a URL such as {DRIVER}://user:password@host:5432/parley") from None
        if url.drivername not in (DRIVER, "postgresql", "postgres"):
            raise ValueError(f"must begin with {DRIVER}://")
        return SecretStr(url.set(drivername=DRIVER).render_as_string(hide_password=False))
