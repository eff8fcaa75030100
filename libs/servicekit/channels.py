"""Channels to peer services, and calls whose errors are `ServiceError`s."""

import asyncio
import ipaddress
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

import grpc

from servicekit import traces
from servicekit.errors import StartupError, Unavailable
from servicekit.rotation import RotatingChannel
from servicekit.rpc_status import from_rpc_error
from servicekit.tls import Certificates, channel_credentials

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""The default limit on the size of messages, in both directions."""

MAX_READ_BUFFER_BYTES = 1024 * 1024

CONNECTION_OPTIONS: tuple[tuple[str, int], ...] = (
    # Both sides send pings this often; the server tolerates twice as many (else: too_many_pings).
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Without it one read takes as much as a peer sends without a pause: hundreds of MB at once (grpc/grpc#42194).
    ("grpc.experimental.tcp_max_read_buffer_size", MAX_READ_BUFFER_BYTES),
)
"""Options of every connection, on both sides."""

MAX_ANSWER_BYTES = 96 * 1024 * 1024
"""The limit on responses of a peer that may send large messages."""


def message_options(send: int, receive: int) -> tuple[tuple[str, int], ...]:
    """Returns the channel options for the size of messages in each direction."""
    return (("grpc.max_send_message_length", send), ("grpc.max_receive_message_length", receive))


MESSAGE_OPTIONS = message_options(MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES)

# `min_reconnect_backoff` bounds one connection attempt (20 s by default), the others the pause between attempts.
CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    *CONNECTION_OPTIONS,
    *MESSAGE_OPTIONS,
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
)

_NO_PART_OF_A_TARGET = re.compile(r"[\s\x00-\x1f\x7f]")

Request = TypeVar("Request")
Response = TypeVar("Response")
Metadata = Sequence[tuple[str, str | bytes]]


def open_channel(
    target: str, tls: Certificates | None = None, *, options: Sequence[tuple[str, Any]] = ()
) -> grpc.aio.Channel:
    """Returns a channel to `target`; it connects on first use and reconnects within 2 s of the peer's return.

    `target` is `host:port`, a comma-separated list of `ip:port` (calls are balanced over them), or a gRPC target URI.
    With `tls` the peer must present a certificate for the name in `target`, and gets ours; when ours change, calls move
    to new connections, and none fails. `options` override the defaults. Close it with `await channel.close()` or `async
    with`. Raises `StartupError` for an invalid target.
    """
    where, options = resolvable(target), tuple({**dict(CHANNEL_OPTIONS), **dict(options)}.items())
    if tls is None:
        return grpc.aio.insecure_channel(where, options=options)
    if where.startswith(("ipv4:", "ipv6:")):
        raise StartupError(f"target {target!r}: with TLS it must be one name, which the peers' certificates hold")
    return RotatingChannel(
        tls, lambda material: grpc.aio.secure_channel(where, channel_credentials(material), options=options)
    )


def resolvable(target: str) -> str:
    """Returns `target` as a gRPC target URI. Raises `StartupError` if it has none of the forms of `open_channel`."""
    if target.startswith(("dns:", "ipv4:", "ipv6:", "unix:", "xds:")):
        if _NO_PART_OF_A_TARGET.search(target):
            raise StartupError(f"target {target!r}: it has a space or a control character in it")
        return target
    parts = [part.strip() for part in target.split(",")]
    hosts = [_host_of(part, target) for part in parts]
    if len(parts) == 1:
        return f"dns:///{parts[0]}"
    try:
        versions = {ipaddress.ip_address(host).version for host in hosts}
    except ValueError:
        versions = set()
    if len(versions) != 1:
        raise StartupError(f"target {target!r}: a list must be of addresses of one family, such as 10.0.0.1:50052")
    return f"ipv{versions.pop()}:{','.join(parts)}"


def _host_of(part: str, target: str) -> str:
    host, separator, port = part.rpartition(":")
    named = host.strip("[]") and "/" not in host and not _NO_PART_OF_A_TARGET.search(host)
    if not (separator and named and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise StartupError(f"target {target!r}: {part!r} is not host:port")
    return host.strip("[]")


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    *,
    timeout: float | None,
    peer: str = "the peer",
    metadata: Metadata | None = None,
) -> Response:
    """Calls a stub's unary method and returns its response.

    `timeout` is in seconds and becomes the peer's deadline. Raises `ServiceError` (see `from_rpc_error`), also when
    the channel is closed under the call; a cancelled task raises `CancelledError` as always.
    """
    if not traces.on():
        return await _call(method, request, timeout, peer, metadata)
    name = _name_of(method)
    with traces.span(name, "client", {"rpc.system.name": "grpc", "rpc.method": name}):
        return await _call(method, request, timeout, peer, (*(metadata or ()), *traces.outgoing()))


async def _call(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    timeout: float | None,
    peer: str,
    metadata: Metadata | None,
) -> Response:
    try:
        return await method(request, timeout=timeout, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer) from error
    except asyncio.CancelledError:
        if _is_own_cancellation():
            raise
        raise Unavailable(peer) from None


def _name_of(method: object) -> str:
    # There is no public attribute for it.
    name: bytes | str = getattr(method, "_method", b"unknown")
    return (name.decode() if isinstance(name, bytes) else name).removeprefix("/")


async def stream(
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
    request: Request,
    *,
    timeout: float | None,
    silence: float | None = None,
    peer: str = "the peer",
    metadata: Metadata | None = None,
) -> AsyncGenerator[Response, None]:
    """Yields the messages of a stub's server-streaming method, with errors as in `call`.

    A stream that sends nothing for `silence` seconds, while it is waited for, is `Unavailable`. Close it
    (`contextlib.aclosing`) when leaving early: this cancels the call, which grpcio does not do by itself.
    """
    responses = method(request, timeout=timeout, metadata=metadata)
    try:
        arriving = aiter(responses)
        while True:
            async with asyncio.timeout(silence):
                response = await anext(arriving, None)
            if response is None:
                return
            yield response
    except TimeoutError:
        raise Unavailable(peer) from None
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer) from error
    except asyncio.CancelledError:
        if _is_own_cancellation():
            raise
        raise Unavailable(peer) from None
    finally:
        responses.cancel()


class Peer:
    """Calls of one peer: errors carry its name, and `timeout` seconds is the default deadline."""

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout: float | None = None,
    ) -> Response:
        """As `call`, within `timeout` or the peer's own."""
        return await call(method, request, timeout=self.timeout if timeout is None else timeout, peer=self.name)

    def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        timeout: float | None = None,
    ) -> AsyncGenerator[Response, None]:
        """As `stream`, within `timeout` or the peer's own."""
        return stream(method, request, timeout=self.timeout if timeout is None else timeout, peer=self.name)


def _is_own_cancellation() -> bool:
    # A call cancelled by its channel also raises CancelledError, in a task that was not cancelled.
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
