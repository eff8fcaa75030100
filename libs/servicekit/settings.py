"""The environment that every service reads; each service's settings subclass `ServiceSettings`."""

import ipaddress
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from servicekit.environment import COMMAS, FromEnvironment, variable
from servicekit.tls import TlsFiles

Port = Annotated[int, Meta(ge=0, le=65535)]


def is_loopback(host: str) -> bool:
    """Tells whether only this machine can reach a listener on `host`. An unknown name counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class ServiceSettings(FromEnvironment):
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

    prefix = "PARLEY_"

    edge: ClassVar[bool] = False
    """Whether clients with keys call this service, and not only the other services."""

    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    grpc_port: Port = 0
    metrics_port: Port = 0
    health_port: Port = 0
    auth: Annotated[Literal["off", "required"], variable("PARLEY_AUTH")] = "off"
    tls_cert_file: Annotated[str, variable("PARLEY_TLS_CERT_FILE")] = ""
    tls_key_file: Annotated[str, variable("PARLEY_TLS_KEY_FILE")] = ""
    tls_ca_file: Annotated[str, variable("PARLEY_TLS_CA_FILE")] = ""
    tls_peers: Annotated[tuple[str, ...], COMMAS, variable("PARLEY_TLS_PEERS")] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    reflection: bool = True
    max_concurrent_rpcs: Annotated[int, Meta(ge=1)] = 4096
    drain_notice: Annotated[float, Meta(ge=0, le=300)] = 0.0
    drain_timeout: Annotated[float, Meta(ge=0, le=600)] = 10.0

    @property
    def tls_files(self) -> TlsFiles | None:
        """The certificates for calls between services; None where they speak in the clear."""
        return TlsFiles(self.tls_cert_file, self.tls_key_file, self.tls_ca_file) if self.tls_cert_file else None

    def problems(self) -> Iterator[str]:
        """Yields what is wrong with the settings together."""
        yield from super().problems()
        yield from self._half_of_tls()
        yield from self._open_doors()

    def _half_of_tls(self) -> Iterator[str]:
        files = {
            "PARLEY_TLS_CERT_FILE": self.tls_cert_file,
            "PARLEY_TLS_KEY_FILE": self.tls_key_file,
            "PARLEY_TLS_CA_FILE": self.tls_ca_file,
        }
        missing = [name for name, path in files.items() if not path]
        if missing and (len(missing) < len(files) or self.tls_peers):
            yield f"TLS between services is half set: {', '.join(missing)} missing"
        if not missing and not self.tls_peers and not self.edge:
            yield "PARLEY_TLS_PEERS is missing: it names the certificates that this service takes calls of"

    def _open_doors(self) -> Iterator[str]:
        if not self.edge and not self.tls_cert_file and not is_loopback(self.host) and self.auth == "required":
            yield (
                f"host {self.host!r} is reachable from other machines while the services speak in the clear: set "
                "PARLEY_TLS_CERT_FILE, PARLEY_TLS_KEY_FILE, PARLEY_TLS_CA_FILE and PARLEY_TLS_PEERS"
            )
        if self.auth == "off" and not is_loopback(self.host):
            yield (
                f"host {self.host!r} is reachable from other machines while authentication is off, so anybody could "
                "use this service: listen on 127.0.0.1"
            )
