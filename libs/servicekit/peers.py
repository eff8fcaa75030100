"""Which services may call this one, by the names in their certificates."""

from collections.abc import Collection
from typing import Any

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
