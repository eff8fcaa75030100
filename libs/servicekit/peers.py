"""Which services may call this one, by the names in their certificates."""

from collections.abc import Collection
from typing import Any
from urllib.parse import unquote

import grpc

from servicekit.errors import Code, ServiceError
from servicekit.interceptors import Behavior, Context, HandlerInterceptor

_NAMES = "x509_subject_alternative_name"
_HEALTH = "/grpc.health.v1.Health/"


class PeerNotAccepted(ServiceError):
    """The peer has a certificate of a trusted authority, but is not one of those that this service accepts."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("the client's certificate names no peer that this service accepts (PARLEY_TLS_PEERS)")


def peer_names(context: Context[Any, Any]) -> tuple[str, ...]:
    """Returns the names in the caller's verified certificate: DNS names, URIs such as SPIFFE ids, addresses.

    Empty where the connection has no TLS, or the client showed no certificate.
    """
    return tuple(name.decode("utf-8", "replace") for name in context.auth_context().get(_NAMES, ()))


def address_of(peer: str) -> str:
    """Returns the IP address in gRPC's name of a peer (`ipv4:127.0.0.1:5`, `ipv6:%5B::1%5D:5`), else the name."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    return unquote(rest).rpartition(":")[0].strip("[]")


class AcceptPeers(HandlerInterceptor):
    """Accepts calls of those peers only whose certificate has one of `names`, compared as a whole.

    Others get `PeerNotAccepted`. Health is reported to every peer that completed the handshake.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self._names = frozenset(names)

    def wrap(self, method: str, behavior: Behavior) -> Behavior:
        if method.startswith(_HEALTH):
            return behavior
        accepted = self._names

        async def checked(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            if accepted.isdisjoint(peer_names(context)):
                raise PeerNotAccepted
            return await behavior(request, context)

        return checked
