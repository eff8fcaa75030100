"""The environment of config_svc (prefix PARLEY_CONFIG_)."""

from datetime import timedelta

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from access.settings import AccessSettings

DRIVER = "postgresql+psycopg"


class ConfigSettings(AccessSettings):
    """Settings of one config_svc process.

    `database_url` is SQLAlchemy's (`postgresql+psycopg://…`; `postgresql://` means the same). Durations are seconds or
    ISO 8601. A deleted agent config can be undeleted for `deleted_retention`; a watch can be resumed for
    `feed_retention`, and over at most `feed_keep` changes. A watch that falls more than `watch_buffer` changes behind
    is cut off. A database that has not answered after `database_timeout` seconds counts as away.
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
    sweep_interval: float = Field(default=60.0, gt=0, le=86400, allow_inf_nan=False)

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
