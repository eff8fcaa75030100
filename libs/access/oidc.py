"""Tokens of identity providers (JWT, RFC 7519; OpenID Connect) as credentials."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

import jwt
from cachetools import LRUCache

from access.api_key import digest_of
from access.binding import scopes_of
from access.caller import TOKEN_PREFIX, Caller
from access.errors import Unauthenticated
from access.jwks import Jwks, JwksTimes
from access.oidc_settings import OidcIssuer
from contract.fields import is_resource_id, is_user_id
from servicekit.egress import EgressDenied, EgressRules
from servicekit.egress_http import GuardedClient

MAX_ID = 256
REMEMBERED = 300.0
"""Seconds for which a verified token is accepted without another verification, unless it expires earlier.

Bounds the use of a withdrawn signing key.
"""

_BAD_TOKEN = (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError)
"""What reading an invalid token may raise: `exp` may be any number, claims may be nested arbitrarily."""


class OidcTokens:
    """The `TokenVerifier` for the issuers of `PARLEY_OIDC`. Owns the HTTP client that fetches their keys."""

    def __init__(
        self,
        issuers: Iterable[OidcIssuer],
        times: JwksTimes | None = None,
        *,
        limit: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._times = times or JwksTimes()
        self._clock = clock
        self._wall = wall
        self._client = GuardedClient(
            _egress(self._issuers.values()), connect_timeout=self._times.timeout, max_connections=16, proxies={}
        )
        self._keys: dict[str, Jwks] = {}
        self._verified: LRUCache[bytes, tuple[Caller, float]] = LRUCache(limit)

    def known(self, digest: bytes) -> Caller | None:
        verified = self._verified.get(digest)
        if verified is None or verified[1] <= self._wall():
            return None
        return verified[0]

    async def caller_of(self, token: str) -> Caller:
        header, issuer = self._unverified(token)
        key = await self._keys_of(issuer).key(str(header.get("kid", "")))
        if key is None:
            raise Unauthenticated
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(issuer.algorithms),
                audience=issuer.audience,
                issuer=issuer.issuer,
                leeway=issuer.leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            ends = float(claims["exp"]) + issuer.leeway
        except _BAD_TOKEN:
            raise Unauthenticated from None
        caller = _caller(issuer, claims)
        self._remember(token, caller, ends)
        return caller

    async def close(self) -> None:
        """Cancels running fetches. Idempotent."""
        for keys in self._keys.values():
            await keys.close()
        await self._client.close()

    def _unverified(self, token: str) -> tuple[Mapping[str, Any], OidcIssuer]:
        """Reads the issuer and key id of a token that is not verified yet."""
        try:
            header = jwt.get_unverified_header(token)
            named = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except _BAD_TOKEN:
            raise Unauthenticated from None
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None or header.get("alg") not in issuer.algorithms:
            raise Unauthenticated
        return header, issuer

    def _keys_of(self, issuer: OidcIssuer) -> Jwks:
        keys = self._keys.get(issuer.issuer)
        if keys is None:
            keys = Jwks(issuer.issuer, issuer.jwks_url, self._client, self._times, self._clock)
            self._keys[issuer.issuer] = keys
        return keys

    def _remember(self, token: str, caller: Caller, ends: float) -> None:
        self._verified[digest_of(token.encode("ascii"))] = (caller, min(ends, self._wall() + REMEMBERED))


def _egress(issuers: Iterable[OidcIssuer]) -> EgressRules:
    """Other locations in an issuer's discovery document must be public, because the operator did not set them."""
    rules = EgressRules()
    for url in [url for issuer in issuers for url in (issuer.issuer, issuer.jwks_url) if url is not None]:
        with contextlib.suppress(EgressDenied):  # not a valid URL: each fetch fails with the reason
            rules = rules.with_origin(url)
    return rules


def _caller(issuer: OidcIssuer, claims: Mapping[str, Any]) -> Caller:
    project = issuer.project if issuer.project_claim is None else claims.get(issuer.project_claim)
    user = "" if issuer.user_claim is None else claims.get(issuer.user_claim)
    if not isinstance(project, str) or not is_resource_id(project):
        raise Unauthenticated
    if not isinstance(user, str) or (issuer.user_claim is not None and not is_user_id(user)):
        raise Unauthenticated
    scopes = issuer.scopes if issuer.scopes_claim is None else _words(claims.get(issuer.scopes_claim))
    # Erasures also search the audit log by this.
    subject = user or quote(str(claims["sub"]), safe="@:|+")
    return Caller(
        id=f"{TOKEN_PREFIX}{subject}"[:MAX_ID],
        project=project,
        scopes=scopes_of(scopes or (), user_bound=bool(user)),
        user_id=user,
    )


def _words(claim: object) -> tuple[str, ...]:
    if isinstance(claim, str):
        return tuple(claim.split())
    return tuple(word for word in claim if isinstance(word, str)) if isinstance(claim, list) else ()
