"""Authentication of callers by any kind of credential."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from access.api_key import PREFIX, digest_of
from access.caller import OPERATOR, SERVICE, Caller
from access.errors import Unauthenticated
from access.key_cache import KeyCache

MAX_CREDENTIAL: Final = 8 * 1024
"""The longest credential that is accepted, in characters."""


class TokenVerifier(Protocol):
    """Verifies the tokens of identity providers."""

    def known(self, digest: bytes) -> Caller | None:
        """Returns the caller of a token that was verified before and has not expired, else None."""

    async def caller_of(self, token: str) -> Caller:
        """Returns the caller of a token. Raises `Unauthenticated`, or `Unavailable` if that can't be determined now."""

    async def close(self) -> None:
        """Cancels running checks. Idempotent."""


class Authenticator:
    """Authenticates the operator, other services, API keys and tokens by the credential after `Bearer `."""

    def __init__(
        self, fixed: Mapping[str, Caller], keys: KeyCache | None = None, tokens: TokenVerifier | None = None
    ) -> None:
        self._fixed = {digest_of(credential.encode()): caller for credential, caller in fixed.items()}
        self._keys = keys
        self._tokens = tokens

    def known(self, credential: str) -> Caller | None:
        """Returns the caller if that needs no I/O, else None. Raises `Unauthenticated` for a key that has ended."""
        if len(credential) > MAX_CREDENTIAL:
            raise Unauthenticated
        digest = digest_of(credential.encode("utf-8", "replace"))
        caller = self._fixed.get(digest)
        if caller is None and self._keys is not None:
            caller = self._keys.known(digest)
        if caller is None and self._tokens is not None:
            caller = self._tokens.known(digest)
        return caller

    async def caller_of(self, credential: str, source: str = "") -> Caller:
        """Returns the caller. Raises `Unauthenticated`, or `Unavailable` if that can't be determined now.

        `source` is the address that the credential comes from, as far as the connection shows it.
        """
        caller = self.known(credential)
        if caller is not None:
            return caller
        if not credential.isascii():
            raise Unauthenticated
        if credential.startswith(PREFIX) and self._keys is not None:
            return await self._keys.caller_of(credential, source)
        if self._tokens is not None and credential.count(".") == 2:
            return await self._tokens.caller_of(credential)
        raise Unauthenticated


def bearer(header: str) -> str:
    """Returns the credential of an `Authorization` header (RFC 6750, 2.1). Raises `Unauthenticated`."""
    scheme, _, credential = header.partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or not credential:
        raise Unauthenticated("credentials must come as `Authorization: Bearer …`")
    return credential


def peer_credential(operator_key: str, service: str) -> str:
    """Returns the credential that a service presents to other services without mutual TLS.

    It is derived (HMAC-SHA256) from the operator key, so that the key itself never travels between services, and
    differs for every service, so that each can be configured whose calls it accepts.
    """
    return hmac.new(operator_key.encode(), b"parley peer v1 " + service.encode(), hashlib.sha256).hexdigest()


def operator() -> Caller:
    """Returns the caller who has the operator key."""
    return Caller("operator", "", frozenset({OPERATOR}))


def service(name: str) -> Caller:
    """Returns one of Parley's own services as a caller."""
    return Caller(f"service:{name}", "", frozenset({SERVICE}))


def fixed_callers(operator_key: str, services: Iterable[str]) -> Mapping[str, Caller]:
    """Returns the callers whose credentials derive from the operator key, by credential."""
    return {operator_key: operator(), **{peer_credential(operator_key, name): service(name) for name in services}}
