"""Channels to Parley's servers: balanced over healthy replicas, with retries where the protos allow them."""

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
"""An API key, or a function that returns it; called for every call, so that a rotated key takes effect."""

MAX_MESSAGE_BYTES: Final = 96 * 1024 * 1024
"""The largest message received or sent; servers have their own limits."""

RETRY_POLICY: Final = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
"""Attempts of a call that may be retried (gRFC A6): within its deadline, and only before its first response."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How a channel is encrypted; the files are read when it is opened."""

    ca: str | os.PathLike[str] | None = None
    """PEM of the trusted authorities; gRPC's own list by default."""
    certificate: str | os.PathLike[str] | None = None
    """PEM of the client certificate, for servers that require one (mutual TLS)."""
    key: str | os.PathLike[str] | None = None
    """PEM of the certificate's key."""
    server_name: str = ""
    """The name in the server's certificate, if it differs from the target's."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns gRPC's credentials.

        Raises OSError for an unreadable file, ValueError for a certificate without its key.
        """
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key come together")
        return grpc.ssl_channel_credentials(*map(_read, (self.ca, self.key, self.certificate)))


def service_config(server: str, *, retry: bool = True) -> dict[str, Any]:
    """Returns gRPC's service config for `gateway`, `config` or `session`, for gRPC in any language.

    Calls are balanced over replicas whose health is SERVING (gRFC A17), and methods that the protos declare safe are
    retried (gRFC A6). This includes methods that a request id makes safe: set one with each request.
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

    `server` says whose replicas `target` names: `gateway`, `config` or `session`; None for a single server that is
    called regardless of its health. Every call has a deadline, its own or that of `promises`, sends the API key, and
    raises `ParleyError`. Requests that a request id makes safe to retry get one unless `retry` is off. `options`
    override the default gRPC options.
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
        # Servers accept a ping every 10 s; a dead connection is detected within 25 s.
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
