"""The environment that every service reads; each service's settings subclass `ServiceSettings`."""

import ipaddress
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def is_loopback(host: str) -> bool:
    """Tells whether only this machine can reach a listener on `host`. An unknown name counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class ServiceSettings(BaseSettings):
    """Settings of one process, from environment variables (prefix `PARLEY_`, or the subclass' own).

    `auth` is `PARLEY_AUTH` for every service. A host beyond loopback while authentication is off is refused, and so is
    `required` as long as no service can check credentials: a door that only looks locked is worse than none.
    Ports are TCP; `grpc_port` 0 means any free one, `metrics_port` 0 means no metrics endpoint. Calls beyond
    `max_concurrent_rpcs`, watches included, are refused at once.
    A stop switches readiness off and serves on for `drain_notice` seconds, in which whoever balances the load notices;
    then it takes nothing new and gives what runs `drain_timeout` seconds to end.
    """

    model_config = SettingsConfigDict(
        env_prefix="PARLEY_", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    host: str = Field(default="127.0.0.1", min_length=1)
    grpc_port: int = Field(default=0, ge=0, le=65535)
    metrics_port: int = Field(default=0, ge=0, le=65535)
    auth: Literal["off", "required"] = Field(default="off", validation_alias="PARLEY_AUTH")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    reflection: bool = True
    max_concurrent_rpcs: int = Field(default=4096, ge=1)
    drain_notice: float = Field(default=0.0, ge=0, le=300, allow_inf_nan=False)
    drain_timeout: float = Field(default=10.0, ge=0, le=600, allow_inf_nan=False)

    @model_validator(mode="after")
    def _refuse_an_open_door(self) -> Self:
        if self.auth == "required":
            raise ValueError("PARLEY_AUTH=required is not built yet: no service would check any credentials")
        if self.auth == "off" and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} is reachable from other machines while authentication is off, so anybody could "
                "use this service: listen on 127.0.0.1"
            )
        return self
