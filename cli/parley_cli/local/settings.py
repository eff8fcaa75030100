"""What `parley up` takes from the environment; everything else the services read for themselves."""

from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from parley_cli.errors import LocalError


class UpSettings(BaseSettings):
    """Ports and model providers of the system on this machine.

    The ports of services are the services' own settings. Embedded stores take any free port unless told. With
    `providers` (JSON, as the gateway reads it) no local model is started.
    """

    model_config = SettingsConfigDict(
        env_prefix="PARLEY_", frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    gateway_http_port: int = Field(default=8080, ge=1, le=65535)
    gateway_grpc_port: int = Field(default=50051, ge=1, le=65535)
    config_grpc_port: int = Field(default=50052, ge=1, le=65535)
    session_grpc_port: int = Field(default=50053, ge=1, le=65535)
    up_postgres_port: int | None = Field(default=None, ge=1, le=65535)
    up_redis_port: int | None = Field(default=None, ge=1, le=65535)
    up_model_port: int | None = Field(default=None, ge=1, le=65535)
    up_hello_model: str | None = None
    providers: dict[str, dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _name_a_provider(self) -> Self:
        if self.providers is not None and not self.providers:
            raise ValueError("PARLEY_PROVIDERS names no provider")
        return self

    @classmethod
    def read(cls) -> Self:
        """Read the environment; raises LocalError with everything that is wrong in one line."""
        try:
            return cls()
        except ValidationError as error:
            wrong = [f"PARLEY_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
            raise LocalError("; ".join(wrong)) from None
        except ValueError as error:  # pydantic-settings: a field that is no JSON
            raise LocalError(str(error)) from None
