"""The cache of API keys: checked once, kept while known to be valid, dropped when revoked."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from cachetools import TTLCache

from access.api_key import digest_of, is_api_key, is_made_here
from access.caller import Caller
from access.errors import Unauthenticated
from access.stranger_checks import MAX_STRANGERS, StrangerChecks
from servicekit.errors import Unavailable
from servicekit.watched_cache import RETRY_AFTER_SECONDS, Freshness, WatchedCache

CONFIG_SVC = "config_svc"


@dataclass(frozen=True, slots=True)
class CheckedKey:
    """What a valid key may do, as its caller; `expire_time` is in Unix seconds, None for a key without an end."""

    caller: Caller
    expire_time: float | None = None


class KeyChecker(Protocol):
    """Checks API keys at their source."""

    async def check(self, key: str) -> CheckedKey:
        """Returns the rights of a key. Raises `Unauthenticated` for an invalid key. Any other `ServiceError` means that
        its validity is unknown.
        """


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """In seconds."""

    silence: float = 0.75
    """A watch that is silent for this long counts as down."""
    recheck_after: float = 0.5
    """While the watch is down, a key confirmed longer ago is checked again before use."""
    patience: float = 0.5
    """How long a request waits for this check before config_svc counts as unreachable."""
    unreachable_pause: float = 0.5
    """After a check that found config_svc unreachable, known keys are not checked again for this long."""
    max_age: float = 900.0
    """While config_svc is unreachable, a key confirmed longer ago is refused."""
    refusal: float = 5.0
    """How long a key that was refused is refused without being checked again."""
    refresh_after: float = 60.0
    """A key in use is checked again this often in the background, so that config_svc knows its last use."""

    def freshness(self) -> Freshness:
        """Returns the times of a cache."""
        return Freshness(
            silence=self.silence,
            recheck_after=self.recheck_after,
            max_age=self.max_age,
            unreachable_pause=self.unreachable_pause,
            patience=self.patience,
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """A key that was valid when last checked."""

    key: str
    caller: Caller
    expires: float | None
    checked: float


class KeyCache:
    """Returns the caller of an API key: by a dictionary look-up if it is cached, otherwise by a check.

    While the watch is up (`watch_began`, then `heard` at least every `silence` seconds) a cached key is valid until it
    is revoked or ends; keys cached before the watch began are checked again before use. While it is down, keys
    confirmed longer ago than `recheck_after` are checked first. While config_svc is unreachable, cached keys stay valid
    for `max_age` (static stability). So a revocation takes effect within a second while config_svc is reachable, and is
    never undone. At most `limit` keys are kept, and as many refusals; at most `max_checks` unknown keys are being
    checked at once. With a `mark_secret`, keys without the mark of this installation take none of these checks: anybody
    can make them up, so they wait in a lane of their own, fair by where they come from (`StrangerChecks`).
    """

    def __init__(
        self,
        checker: KeyChecker,
        times: KeyTimes | None = None,
        *,
        limit: int = 10_000,
        max_checks: int = 64,
        mark_secret: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._checker = checker
        self._times = times or KeyTimes()
        self._clock = clock
        self._wall = wall
        self._keys: WatchedCache[bytes, _Known] = WatchedCache(
            self._times.freshness(),
            peer=CONFIG_SVC,
            absent=lambda digest: Unauthenticated(),
            name_of=lambda digest, known: known.caller.id,
            limit=limit,
            max_reads=max_checks + MAX_STRANGERS,
            clock=clock,
        )
        self._refused: TTLCache[bytes, None] = TTLCache(limit, self._times.refusal, timer=clock)
        self._max_checks = max_checks
        self._checks = 0
        self._mark_secret = mark_secret
        self._strangers = StrangerChecks(CONFIG_SVC)
        self._silence = self._times.silence
        self.asked = asyncio.Event()
        """Set by every look-up; cleared by the follower of the watch."""

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def watching(self) -> bool:
        """Whether the watch is up, so that revocations are pushed."""
        return self._keys.up and self._keys.silence <= self._silence

    @property
    def unreachable(self) -> bool:
        """Whether the last check found config_svc unreachable, so that cached keys are used unchecked."""
        return self._keys.unreachable

    def known(self, digest: bytes) -> Caller | None:
        """Returns the caller of the key with this digest if that needs no check, else None. Raises `Unauthenticated`
        for a key that has ended.
        """
        self.asked.set()
        known = self._keys.fresh(digest)
        if known is None:
            return None
        if self._clock() - known.checked > self._times.refresh_after and not self._keys.is_being_read(digest):
            self._keys.start_read(digest, lambda: self._check(known.key, digest))
        return self._unless_ended(known)

    async def caller_of(self, key: str, source: str = "") -> Caller:
        """Returns the caller of a key. Raises `Unauthenticated`, or `Unavailable` if that can't be determined. `source`
        is the address that the key came from, as far as the connection shows it.
        """
        if not is_api_key(key):
            raise Unauthenticated
        digest = digest_of(key.encode("ascii"))
        caller = self.known(digest)
        if caller is not None:
            return caller
        if digest in self._refused:
            raise Unauthenticated
        return self._unless_ended(await self._keys.get(digest, self._first_check(key, digest, source)))

    def watch_began(self, silence: float | None = None) -> None:
        """Notes that every revocation is pushed from now on: keys cached before must be checked again. A watch with
        heartbeats less frequent than `KeyTimes.silence` passes its own `silence`: it counts as up for that long, but
        keys are checked again after `KeyTimes.silence`.
        """
        self._silence = self._times.silence if silence is None else silence
        self._keys.watch_began()

    def heard(self, key_ids: Iterable[str] = ()) -> None:
        """Notes a message of the watch, and drops the keys that it names."""
        self._keys.heard()
        for key_id in key_ids:
            self._keys.remove(key_id)

    def watch_lost(self) -> None:
        """Notes that the watch has ended. Idempotent."""
        self._keys.watch_lost()

    async def close(self) -> None:
        """Cancels running checks."""
        await self._keys.close()

    def _first_check(self, key: str, digest: bytes, source: str) -> Callable[[], Awaitable[_Known | None]]:
        """Returns how to check a key, within the bounds of its lane."""

        async def of_this_installation() -> _Known | None:
            if self._checks >= self._max_checks:
                raise Unavailable(CONFIG_SVC, retry_after=RETRY_AFTER_SECONDS)
            self._checks += 1
            try:
                return await self._check(key, digest)
            finally:
                self._checks -= 1

        async def of_a_stranger() -> _Known | None:
            async with self._strangers.place(source):
                return await self._check(key, digest)

        if digest in self._keys:
            return lambda: self._check(key, digest)
        if self._mark_secret is None or is_made_here(key, self._mark_secret):
            return of_this_installation
        return of_a_stranger

    async def _check(self, key: str, digest: bytes) -> _Known | None:
        started = self._clock()
        try:
            checked = await self._checker.check(key)
        except Unauthenticated:
            self._refused[digest] = None
            return None
        self._refused.pop(digest, None)
        return _Known(key, checked.caller, checked.expire_time, started)

    def _unless_ended(self, known: _Known) -> Caller:
        if known.expires is not None and known.expires <= self._wall():
            raise Unauthenticated
        return known.caller
