"""The environment that every service reads; each service's settings subclass `ServiceSettings`."""

import ipaddress
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from servicekit.tls import TlsFiles


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

    `auth` is `PARLEY_AUTH` for every service. A host beyond loopback while authentication is off is refused.
    The `tls_` settings are `PARLEY_TLS_CERT_FILE` and so on for every service: with them the services speak mutual TLS
    with each other, and one that is not an edge takes calls of `tls_peers` only, the names in their certificates (DNS
    names, or URIs such as SPIFFE ids). Beyond loopback a service that is not an edge refuses to start without.
    Ports are TCP; `grpc_port` 0 means any free one, `metrics_port` 0 means no metrics endpoint. `health_port` (0: none)
    answers grpc.health.v1 and nothing else, without TLS and without credentials: for probes, which can show neither.
    Calls beyond `max_concurrent_rpcs`, watches included, are refused at once.
    A stop switches readiness off and serves on for `drain_notice` seconds, in which whoever balances the load notices;
    then it takes nothing new and gives what runs `drain_timeout` seconds to end.
    """

    model_config = SettingsConfigDict(
        env_prefix="PARLEY_", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    edge: ClassVar[bool] = False
    """Whether clients with keys call this service, and not only the other services."""

    host: str = Field(default="127.0.0.1", min_length=1)
    grpc_port: int = Field(default=0, ge=0, le=65535)
    metrics_port: int = Field(default=0, ge=0, le=65535)
    health_port: int = Field(default=0, ge=0, le=65535)
    auth: Literal["off", "required"] = Field(default="off", validation_alias="PARLEY_AUTH")
    tls_cert_file: str = Field(default="", validation_alias="PARLEY_TLS_CERT_FILE")
    tls_key_file: str = Field(default="", validation_alias="PARLEY_TLS_KEY_FILE")
    tls_ca_file: str = Field(default="", validation_alias="PARLEY_TLS_CA_FILE")
    tls_peers: Annotated[tuple[str, ...], NoDecode] = Field(default=(), validation_alias="PARLEY_TLS_PEERS")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    reflection: bool = True
    max_concurrent_rpcs: int = Field(default=4096, ge=1)
    drain_notice: float = Field(default=0.0, ge=0, le=300, allow_inf_nan=False)
    drain_timeout: float = Field(default=10.0, ge=0, le=600, allow_inf_nan=False)

    @property
    def tls_files(self) -> TlsFiles | None:
        """The certificates for calls between services; None where they speak in the clear."""
        return TlsFiles(self.tls_cert_file, self.tls_key_file, self.tls_ca_file) if self.tls_cert_file else None

    @field_validator("tls_peers", mode="before")
    @classmethod
    def _split_names(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        return tuple(name for part in given.split(",") if (name := part.strip()))

    @model_validator(mode="after")
    def _refuse_half_of_tls(self) -> Self:
        files = {
            "PARLEY_TLS_CERT_FILE": self.tls_cert_file,
            "PARLEY_TLS_KEY_FILE": self.tls_key_file,
            "PARLEY_TLS_CA_FILE": self.tls_ca_file,
        }
        missing = [name for name, path in files.items() if not path]
        if missing and (len(missing) < len(files) or self.tls_peers):
            raise ValueError(f"TLS between services is half set: {', '.join(missing)} missing")
        if not missing and not self.tls_peers and not self.edge:
            raise ValueError("PARLEY_TLS_PEERS is missing: it names the certificates that this service takes calls of")
        return self

    @model_validator(mode="after")
    def _refuse_an_open_door(self) -> Self:
        if not self.edge and not self.tls_cert_file and not is_loopback(self.host) and self.auth == "required":
            raise ValueError(
                f"host {self.host!r} is reachable from other machines while the services speak in the clear: set "
                "PARLEY_TLS_CERT_FILE, PARLEY_TLS_KEY_FILE, PARLEY_TLS_CA_FILE and PARLEY_TLS_PEERS"
            )
        if self.auth == "off" and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} is reachable from other machines while authentication is off, so anybody could "
                "use this service: listen on 127.0.0.1"
            )
        return self
