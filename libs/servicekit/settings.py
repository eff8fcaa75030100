"""The environment that every service reads; each service's settings subclass `ServiceSettings`."""

import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.aliases import AliasGenerator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from servicekit.channels import resolvable
from servicekit.errors import StartupError
from servicekit.tls import TlsFiles


class SettingsError(ValueError):
    """The environment does not make settings. One line for each thing that is wrong, which names the variable."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What the numbers of a setting count, for `docs/configuration.md`."""

    name: str


def _seconds(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value  # ISO 8601


def _words(value: object) -> object:
    return [word for part in value.split(",") if (word := part.strip())] if isinstance(value, str) else value


def _json(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def _target(value: str) -> str:
    try:
        resolvable(value)
    except StartupError as error:
        raise ValueError(str(error)) from None
    return value


Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Unit("s")]
Bytes = Annotated[int, Unit("bytes")]
Duration = Annotated[timedelta, BeforeValidator(_seconds), Unit("s, or ISO 8601")]
Words = Annotated[tuple[str, ...], BeforeValidator(_words), Unit("words with commas between")]
GrpcTarget = Annotated[str, Field(max_length=2048), AfterValidator(_target)]
"""A target that `servicekit.channels.open_channel` takes."""
FROM_JSON = BeforeValidator(_json)
"""Annotates a field whose variable holds JSON."""


def variables_after(prefix: str) -> AliasGenerator:
    """Makes the variable of a field its name in capitals after `prefix`; a field's own `validation_alias` stays."""
    return AliasGenerator(validation_alias=lambda name: f"{prefix}{name}".upper())


class EnvironmentSettings(BaseSettings):
    """Settings that are read from the environment when one is made; immutable then.

    What the constructor is given, by a field's name, goes before the environment, and that before defaults. Raises
    `SettingsError` with everything that is wrong, and without any value: it may be a secret.
    """

    model_config = SettingsConfigDict(
        case_sensitive=True, enable_decoding=False, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    def __init__(self, **given: Any) -> None:
        variables = self.variables()
        try:
            super().__init__(**{variables.get(name, name): value for name, value in given.items()})
        except ValidationError as error:
            raise SettingsError("\n".join(map(_described, error.errors()))) from None
        if wrong := list(self.problems()):
            raise SettingsError("\n".join(wrong))

    def problems(self) -> Iterator[str]:
        """Yields what is wrong with the settings together; each is right by itself. Subclasses add to it."""
        yield from ()

    @classmethod
    def variables(cls) -> Mapping[str, str]:
        """Returns the environment variable of each field, by the field's name."""
        return {name: str(field.validation_alias or name) for name, field in cls.model_fields.items()}


def _described(error: ErrorDetails) -> str:
    variable, *inside = map(str, error["loc"])
    message = "is required" if error["type"] == "missing" else str(error["msg"]).removeprefix("Value error, ")
    return ": ".join([variable, *filter(None, [".".join(inside)]), message])


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach a listener on `host`. An unknown name counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class ServiceSettings(EnvironmentSettings):
    """Settings of one process. Ports are TCP.

    A host beyond loopback while authentication is off is refused. With the `tls_` files the services use mutual TLS
    with each other, and one that is not an edge accepts calls of `tls_peers` only; beyond loopback a service that
    is not an edge refuses to start without.
    """

    model_config = SettingsConfigDict(alias_generator=variables_after("PARLEY_"))

    edge: ClassVar[bool] = False
    """Whether clients with keys call this service, and not only the other services."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        max_length=255,
        description="Address to listen on. One that other machines can reach needs `PARLEY_AUTH=required`.",
    )
    grpc_port: Port = Field(default=0, description="Port of the gRPC API; 0: any free one.")
    metrics_port: Port = Field(default=0, description="Port of `/metrics` (Prometheus); 0: none.")
    health_port: Port = Field(
        default=0,
        description="Port that answers `grpc.health.v1` and nothing else, without TLS and credentials, for probes; "
        "0: none.",
    )
    auth: Literal["off", "required"] = Field(
        default="off", validation_alias="PARLEY_AUTH", description="Whether callers need credentials."
    )
    tls_cert_file: str = Field(
        default="",
        validation_alias="PARLEY_TLS_CERT_FILE",
        description="Certificate (PEM) for calls between services, both as server and as client. The three files go "
        "together; they are read again when they change.",
    )
    tls_key_file: str = Field(
        default="", validation_alias="PARLEY_TLS_KEY_FILE", description="Private key (PEM) of that certificate."
    )
    tls_ca_file: str = Field(
        default="",
        validation_alias="PARLEY_TLS_CA_FILE",
        description="Certificates (PEM) of the authorities that the other services' certificates are checked against.",
    )
    tls_peers: Words = Field(
        default=(),
        validation_alias="PARLEY_TLS_PEERS",
        description="Names in the certificates whose calls are accepted: DNS names, or URIs such as SPIFFE ids. "
        "Required with TLS where only services call.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe lines that are logged."
    )
    log_format: Literal["json", "console"] = Field(default="json", description="How lines of the log are written.")
    reflection: bool = Field(default=True, description="Whether gRPC server reflection is served.")
    max_concurrent_rpcs: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="gRPC calls at a time, watches included; more are refused at once.",
    )
    max_grpc_connections: int = Field(
        default=1024,
        ge=8,
        le=1_000_000,
        description="Connections to the gRPC port at a time; more are closed as they come.",
    )
    drain_notice: Seconds = Field(
        default=0.0,
        ge=0,
        le=300,
        description="How long a stop serves on as unready, so that load balancers notice.",
    )
    drain_timeout: Seconds = Field(
        default=10.0,
        ge=0,
        le=600,
        description="How long calls in flight may then take before they are cancelled.",
    )

    @property
    def tls_files(self) -> TlsFiles | None:
        """The certificates for calls between services; None where they are not encrypted."""
        return TlsFiles(self.tls_cert_file, self.tls_key_file, self.tls_ca_file) if self.tls_cert_file else None

    def problems(self) -> Iterator[str]:
        """Yields what is wrong with the settings together."""
        yield from super().problems()
        yield from self._incomplete_tls()
        yield from self._unprotected_listeners()

    def _incomplete_tls(self) -> Iterator[str]:
        files = {
            "PARLEY_TLS_CERT_FILE": self.tls_cert_file,
            "PARLEY_TLS_KEY_FILE": self.tls_key_file,
            "PARLEY_TLS_CA_FILE": self.tls_ca_file,
        }
        missing = [name for name, path in files.items() if not path]
        if missing and (len(missing) < len(files) or self.tls_peers):
            yield f"TLS between services is incomplete: {', '.join(missing)} missing"
        if not missing and not self.tls_peers and not self.edge:
            yield "PARLEY_TLS_PEERS is missing: it names the certificates whose calls this service accepts"

    def _unprotected_listeners(self) -> Iterator[str]:
        if is_loopback(self.host):
            return
        reachable = f"{self.variables()['host']}: {self.host!r} is reachable from other machines while"
        if not self.edge and not self.tls_cert_file and self.auth == "required":
            yield (
                f"{reachable} calls between services are not encrypted: set PARLEY_TLS_CERT_FILE, PARLEY_TLS_KEY_FILE, "
                "PARLEY_TLS_CA_FILE and PARLEY_TLS_PEERS"
            )
        if self.auth == "off":
            yield f"{reachable} authentication is off, so anybody could use this service: listen on 127.0.0.1"
