"""What `parley up` takes from the environment; everything else the services read for themselves."""

from collections.abc import Iterator
from typing import Annotated, Any, Self

from msgspec import Meta

from parley_cli.errors import LocalError
from servicekit.environment import FromEnvironment, SettingsError

Port = Annotated[int, Meta(ge=1, le=65535)]
MaybePort = Annotated[int | None, Meta(ge=1, le=65535)]


class UpSettings(FromEnvironment):
    """Ports and model providers of the system on this machine.

    The ports of services are the services' own settings. Embedded stores take any free port unless told. With
    `providers` (JSON, as the gateway reads it) no local model is started.
    """

    prefix = "PARLEY_"
    empty_is_unset = True

    gateway_http_port: Port = 8080
    gateway_grpc_port: Port = 50051
    config_grpc_port: Port = 50052
    session_grpc_port: Port = 50053
    up_postgres_port: MaybePort = None
    up_redis_port: MaybePort = None
    up_model_port: MaybePort = None
    up_hello_model: str | None = None
    providers: dict[str, dict[str, Any]] | None = None

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the settings together."""
        if self.providers is not None and not self.providers:
            yield "PARLEY_PROVIDERS names no provider"

    @classmethod
    def read(cls) -> Self:
        """Read the environment; raises LocalError with everything that is wrong in one line."""
        try:
            return cls()
        except SettingsError as error:
            raise LocalError(str(error)) from None
