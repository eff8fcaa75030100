"""What `parley up` takes from the environment; everything else the services read for themselves."""

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from parley_cli.errors import LocalError
from servicekit.settings import FROM_JSON, EnvironmentSettings, SettingsError, variables_after

Port = Annotated[int, Field(ge=1, le=65535)]


class UpSettings(EnvironmentSettings):
    """Ports and model providers of the system on this machine.

    The ports of services are the services' own settings. With `providers`, as the gateway reads it, no local model is
    started. An empty variable is one that is not set.
    """

    model_config = SettingsConfigDict(alias_generator=variables_after("PARLEY_"), env_ignore_empty=True)

    gateway_http_port: Port = Field(
        default=8080, description="HTTP port of the first gateway; further ones take the ports after it."
    )
    gateway_grpc_port: Port = Field(
        default=50051, description="gRPC port of the first gateway; further ones take those from 100 above it."
    )
    gateway_console: bool = Field(default=True, description="Whether the gateways serve the console.")
    config_grpc_port: Port = Field(default=50052, description="gRPC port of config_svc.")
    session_grpc_port: Port = Field(default=50053, description="gRPC port of session_svc.")
    up_postgres_port: Port | None = Field(
        default=None, description="Port of the embedded PostgreSQL; unset: any free one."
    )
    up_redis_port: Port | None = Field(default=None, description="Port of the embedded Redis; unset: any free one.")
    up_model_port: Port | None = Field(default=None, description="Port of the local model; unset: any free one.")
    up_hello_model: str | None = Field(
        default=None, description="Model of the agent `hello`; unset: the first that the provider lists."
    )
    providers: Annotated[dict[str, dict[str, Any]] | None, FROM_JSON] = Field(
        default=None, description="Providers, as the gateway reads them; with it no local model is started."
    )
    tool_servers: Annotated[dict[str, dict[str, Any]], FROM_JSON] = Field(
        default={}, description="The operator's tool servers, as the gateway reads them."
    )

    def problems(self) -> Iterator[str]:
        """Yields what is wrong with the settings together."""
        yield from super().problems()
        if self.providers is not None and not self.providers:
            yield "PARLEY_PROVIDERS names no provider"

    @classmethod
    def read(cls) -> Self:
        """Reads the environment; raises LocalError with a line for each thing that is wrong."""
        try:
            return cls()
        except SettingsError as error:
            raise LocalError(str(error)) from None
