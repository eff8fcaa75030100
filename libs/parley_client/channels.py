"""Channels to Parley's servers: balanced over replicas that serve, repeating the calls that the protos let repeat."""

import ipaddress
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from parley_client import async_calls, calls
from parley_client.promises import PROMISES, SERVICES

Options = Sequence[tuple[str, Any]]
ApiKey = str | Callable[[], str]
"""An API key, or what returns the one to show; asked at each call, so that a rotated key is taken up."""

MAX_MESSAGE_BYTES: Final = 96 * 1024 * 1024
"""The largest message that is taken or sent; servers have bounds of their own."""

RETRY_POLICY: Final = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
"""How often a call is made that may be repeated (gRFC A6): within its deadline, and only before its first answer."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How a channel is encrypted; the files are read when it is opened."""

    ca: str | os.PathLike[str] | None = None
    """PEM of the authorities to trust; gRPC's own list where it is left out."""
    certificate: str | os.PathLike[str] | None = None
    """PEM of the certificate to show, for servers that ask for one (mutual TLS)."""
    key: str | os.PathLike[str] | None = None
    """PEM of the certificate's key."""
    server_name: str = ""
    """The name in the server's certificate, where it is not the target's."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns what gRPC takes. Raises OSError for a file that can't be read, ValueError for half a certificate."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key come together")
        return grpc.ssl_channel_credentials(*map(_read, (self.ca, self.key, self.certificate)))


def service_config(server: str, *, retry: bool = True) -> dict[str, Any]:
    """Returns gRPC's service config for `gateway`, `config` or `session`, as any language's gRPC takes it.

    Calls go round the replicas whose health is SERVING (gRFC A17), and those that the protos promise to be repeatable
    are repeated (gRFC A6). A method that a request id makes repeatable is listed, too: set one with each request.
    """
    services = SERVICES[server]
    repeated = [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if PROMISES[f"/{service.full_name}/{method.name}"].repeatable
    ]
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": services[0].full_name},
    }
    if retry:
        config["methodConfig"] = [{"name": repeated, "retryPolicy": RETRY_POLICY}]
        config["retryThrottling"] = {"maxTokens": 20, "tokenRatio": 0.2}
    return config


def target_uri(target: str) -> str:
    """Returns a gRPC target URI for one, for `host:port`, or for a list of `ip:port` separated by commas.

    Raises ValueError for anything else.
    """
    if target.startswith(("dns:", "ipv4:", "ipv6:", "unix:", "xds:")):
        return target
    places = [place.strip() for place in target.split(",")]
    hosts = [_host(place) for place in places]
    if len(places) == 1:
        return f"dns:///{places[0]}"
    versions = {ipaddress.ip_address(host).version for host in hosts}
    if len(versions) > 1:
        raise ValueError(f"{target!r} mixes addresses of IPv4 and IPv6")
    return f"ipv{versions.pop()}:{','.join(places)}"


def open_channel(
    target: str,
    server: str | None = "gateway",
    *,
    tls: Tls | None = None,
    api_key: ApiKey = "",
    retry: bool = True,
    options: Options = (),
) -> grpc.Channel:
    """Returns a channel that any generated stub takes; `with` closes it.

    `server` says whose replicas `target` names: `gateway`, `config` or `session`; None for a single one that is asked
    whatever its health. Every call has a deadline, its own or
    that of `promises`; shows the API key; and raises `ParleyError`. Requests that a request id makes repeatable get one
    unless `retry` is off. `options` of gRPC override ours.
    """
    where, options = target_uri(target), _options(target, server, tls, retry, options)
    if tls is None:
        inner = grpc.insecure_channel(where, options=options)
    else:
        inner = grpc.secure_channel(where, tls.credentials(), options=options)
    return calls.Channel(inner, calls.Rules(api_key, keyed=retry))


def open_async_channel(
    target: str,
    server: str | None = "gateway",
    *,
    tls: Tls | None = None,
    api_key: ApiKey = "",
    retry: bool = True,
    options: Options = (),
) -> grpc.aio.Channel:
    """As `open_channel`, for asyncio; `async with` closes it."""
    where, options = target_uri(target), _options(target, server, tls, retry, options)
    if tls is None:
        inner = grpc.aio.insecure_channel(where, options=options)
    else:
        inner = grpc.aio.secure_channel(where, tls.credentials(), options=options)
    return async_calls.Channel(inner, calls.Rules(api_key, keyed=retry))


def _options(target: str, server: str | None, tls: Tls | None, retry: bool, given: Options) -> list[tuple[str, Any]]:
    chosen: dict[str, Any] = {
        "grpc.enable_retries": int(retry),
        # A server takes a ping every 10 s; a connection that died unseen is found within 25.
        "grpc.keepalive_time_ms": 20_000,
        "grpc.keepalive_timeout_ms": 5_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        # A replica that is back is found within 2 s.
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 2_000,
        "grpc.dns_min_time_between_resolutions_ms": 1_000,
    }
    if server is not None:
        chosen["grpc.service_config"] = json.dumps(service_config(server, retry=retry))
    if _is_this_machine(target):
        chosen["grpc.enable_http_proxy"] = 0
    if tls is not None and tls.server_name:
        chosen["grpc.ssl_target_name_override"] = tls.server_name
    return list({**chosen, **dict(given)}.items())


def _is_this_machine(target: str) -> bool:
    places = target.removeprefix("dns:///").removeprefix("ipv4:").removeprefix("ipv6:").split(",")
    return all(_loopback(place.strip().rpartition(":")[0].strip("[]")) for place in places)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(place: str) -> str:
    host, _, port = place.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{place!r} is not host:port")
    return host.strip("[]")


def _read(file: str | os.PathLike[str] | None) -> bytes | None:
    if file is None:
        return None
    with open(file, "rb") as opened:
        return opened.read()
