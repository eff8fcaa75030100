"""A cache of the public keys of one issuer (JWKS, RFC 7517)."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm

from servicekit.egress import EgressDenied
from servicekit.egress_http import GuardedClient, ResponseTooLarge, read_bounded
from servicekit.errors import Unavailable
from servicekit.supervision import cancel_and_wait

MAX_DOCUMENT = 256 * 1024
"""Bytes of a document; a longer one counts as unavailable."""
MAX_KEYS = 64
"""Keys of an issuer; further ones are ignored."""
MAX_WAITING = 256
"""Tokens that may wait for a fetch; beyond that, tokens with unknown keys fail at once."""

log = structlog.get_logger("access.oidc")


@dataclass(frozen=True, slots=True)
class JwksTimes:
    """In seconds."""

    fresh: float = 600.0
    """Keys fetched longer ago are fetched again, in the background, when a token comes."""
    stale: float = 86_400.0
    """While the issuer is unreachable, older keys are no longer used."""
    pause: float = 10.0
    """Minimum time between two fetches, since anybody can make up a key id."""
    timeout: float = 5.0


class FetchFailed(Exception):
    """The document is unavailable."""


class Jwks:
    """The keys of one issuer, at `jwks_url` or where its discovery document says.

    One request runs at a time, regardless of cancelled callers; redirects are not followed.
    """

    def __init__(
        self,
        issuer: str,
        jwks_url: str | None,
        client: GuardedClient,
        times: JwksTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._url = jwks_url
        self._client = client
        self._times = times or JwksTimes()
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._fetch: asyncio.Task[None] | None = None
        self._waiting = 0

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """Returns the key with this id, "" for the only one; None if the issuer has no such key. Raises `Unavailable`
        if the issuer is unreachable and no sufficiently recent keys are cached, or if more than `MAX_WAITING` others
        are waiting.
        """
        age = self._clock() - self._fetched
        if age > self._times.stale:
            self._keys = {}
        found = self._find(key_id)
        if found is not None:
            if age > self._times.fresh:
                self._start_fetch()
            return found
        fetch = self._start_fetch()
        if fetch is not None:
            await self._fetched_by(fetch)
        if not self._keys:
            raise Unavailable("the identity provider", retry_after=self._times.pause)
        return self._find(key_id)

    async def close(self) -> None:
        """Cancels the running fetch."""
        if self._fetch is not None:
            await cancel_and_wait(self._fetch)

    async def _fetched_by(self, fetch: asyncio.Task[None]) -> None:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("the identity provider", retry_after=self._times.pause)
        self._waiting += 1
        try:
            await asyncio.wait([fetch])  # another's cancellation does not end it, nor its end whoever waits
        finally:
            self._waiting -= 1

    def _find(self, key_id: str) -> jwt.PyJWK | None:
        if not key_id and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _start_fetch(self) -> asyncio.Task[None] | None:
        if self._fetch is not None and not self._fetch.done():
            return self._fetch
        if self._clock() - self._tried < self._times.pause:
            return None
        self._tried = self._clock()
        self._fetch = asyncio.get_running_loop().create_task(self._refresh())
        return self._fetch

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(self._times.timeout):
                url = self._url or await self._discover()
                document = await self._get(url)
        except (TimeoutError, FetchFailed, EgressDenied, aiohttp.ClientError) as error:
            log.warning("jwks_not_fetched", issuer=self._issuer, error=str(error) or type(error).__name__)
            return
        keys = await asyncio.to_thread(usable_keys, document)
        if not keys:
            log.warning("jwks_without_usable_keys", issuer=self._issuer)
            return
        self._keys, self._fetched = keys, self._clock()

    async def _discover(self) -> str:
        document = await self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        url = document.get("jwks_uri")
        if document.get("issuer") != self._issuer or not isinstance(url, str):
            raise FetchFailed("the discovery document is not this issuer's")
        if not url.startswith(self._issuer.split("://")[0] + "://"):
            raise FetchFailed("the discovery document names keys by another scheme")
        return url

    async def _get(self, url: str) -> dict[str, Any]:
        async with await self._client.send("GET", url, headers={}) as response:
            if response.status != 200:
                raise FetchFailed(f"{url} answered {response.status}")
            try:
                body = await read_bounded(response, MAX_DOCUMENT)
            except ResponseTooLarge:
                raise FetchFailed(f"{url} is larger than {MAX_DOCUMENT} bytes") from None
        return read_document(body, url)


def read_document(body: bytes, url: str) -> dict[str, Any]:
    """Returns the JSON object in an identity provider's response. Raises FetchFailed for anything else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise FetchFailed(f"{url} is no JSON object")
    return document


def usable_keys(document: Mapping[str, Any]) -> Mapping[str, jwt.PyJWK]:
    """Returns the keys of a JWKS that can verify signatures, by id."""
    keys: dict[str, jwt.PyJWK] = {}
    listed = document.get("keys")
    for entry in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use") == "enc":
            continue
        try:
            keys[str(entry.get("kid", ""))] = jwt.PyJWK(entry)
        except (
            jwt.PyJWTError,
            ValueError,
            TypeError,
            AttributeError,
            LookupError,
            ArithmeticError,
            UnsupportedAlgorithm,
        ):
            continue  # an unsupported kind of key, or not a key
    return keys
