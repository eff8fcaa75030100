"""API keys as this process knows them: checked once, kept while they are known to be good, dropped when revoked."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog

from access.api_key import digest_of, is_api_key
from access.caller import Caller
from access.errors import Unauthenticated
from servicekit.errors import UNREACHABLE, ServiceError, Unavailable

CONFIG_SVC = "config_svc"

_ATTEMPTS = 3

log = structlog.get_logger("access.keys")


@dataclass(frozen=True, slots=True)
class CheckedKey:
    """What a valid key may do, as its caller; `expire_time` is in Unix seconds, None for a key without an end."""

    caller: Caller
    expire_time: float | None = None


class KeyChecker(Protocol):
    """Those who know the keys."""

    async def check(self, key: str) -> CheckedKey:
        """Returns what the key may do. Raises `Unauthenticated` for one that is not, or no longer, good.

        Any other `ServiceError` means that it is not known whether it is.
        """


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """In seconds."""

    silence: float = 0.75
    """A watch that says nothing for this long counts as down."""
    recheck_after: float = 0.5
    """While the watch is down, a key confirmed longer ago is checked again before use."""
    patience: float = 0.5
    """How long a request waits for such a check before config_svc counts as away."""
    away_pause: float = 0.5
    """After a check that found config_svc away, known keys are not checked again for this long."""
    max_age: float = 900.0
    """While config_svc is away, a key confirmed longer ago is not good any more."""
    refusal: float = 5.0
    """How long a key that was refused is refused without being checked again."""
    refresh_after: float = 60.0
    """A key in use is checked again this often, unnoticed, so that config_svc knows when it was last used."""


class _Known:
    """A key that was good when it was last checked."""

    __slots__ = ("caller", "checked", "digest", "expires", "generation", "key")

    def __init__(self, key: str, digest: bytes, checked_key: CheckedKey, checked: float, generation: int) -> None:
        self.key = key
        self.digest = digest
        self.caller = checked_key.caller
        self.expires = checked_key.expire_time
        self.checked = checked
        self.generation = generation


class KeyCache:
    """Tells who an API key is, in a dictionary look-up while that is known, and by a check otherwise.

    While the watch is up (`watch_began`, then `heard` at least every `silence` seconds) a known key is good until it is
    revoked or ends; what was known before it began is checked again before use. While it is down, keys confirmed longer
    ago than `recheck_after` are checked first. While config_svc is away altogether, known keys go on for `max_age`
    (static stability). A revocation is so seen within a second while config_svc can be reached, and a key is never
    taken after it was seen. At most `limit` keys are kept, and as many refusals; at most `max_checks` keys that are not
    known are being checked at once.
    """

    def __init__(
        self,
        checker: KeyChecker,
        times: KeyTimes | None = None,
        *,
        limit: int = 10_000,
        max_checks: int = 64,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._checker = checker
        self._times = times or KeyTimes()
        self._limit = limit
        self._max_checks = max_checks
        self._clock = clock
        self._wall = wall
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._by_id: dict[str, bytes] = {}
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._checks: dict[bytes, asyncio.Task[Caller]] = {}
        self._announced: set[str] = set()
        self._generation = 0
        self._watching = False
        self._heard = float("-inf")
        self._away_until = float("-inf")

    def __len__(self) -> int:
        return len(self._known)

    @property
    def watching(self) -> bool:
        """Whether the watch is up: revocations are pushed at present."""
        return self._watching and self._clock() - self._heard <= self._times.silence

    @property
    def away(self) -> bool:
        """Whether the last check found nobody to ask: known keys go on unchecked."""
        return self._clock() < self._away_until

    def known(self, digest: bytes) -> Caller | None:
        """Returns the caller whose key has this digest, where that needs no check; else None.

        Raises `Unauthenticated` for a key that has ended.
        """
        entry = self._known.get(digest)
        if entry is None:
            return None
        self._require_not_ended(entry)
        now = self._clock()
        if self._watching and now - self._heard <= self._times.silence:
            if entry.generation != self._generation:
                return None
        elif now - self._confirmed(entry) > self._times.recheck_after:
            return None
        if now - entry.checked > self._times.refresh_after and digest not in self._checks:
            self._start_check(entry.key, digest)
        self._known.move_to_end(digest)
        return entry.caller

    async def caller_of(self, key: str) -> Caller:
        """Returns the caller whose key this is. Raises `Unauthenticated`; `Unavailable` when nobody can tell."""
        if not is_api_key(key):
            raise Unauthenticated
        digest = digest_of(key.encode("ascii"))
        caller = self.known(digest)
        if caller is not None:
            return caller
        if self._refused.get(digest, float("-inf")) > self._clock():
            raise Unauthenticated
        entry = self._known.get(digest)
        if entry is None:
            return await self._first_check(key, digest)
        if self.away:
            return self._stale(entry)
        try:
            async with asyncio.timeout(self._times.patience):
                return await self._check_once(key, digest)
        except TimeoutError:
            pass
        except ServiceError as error:
            if error.code not in UNREACHABLE:
                raise
        self._away_until = self._clock() + self._times.away_pause
        return self._stale(entry)

    def watch_began(self) -> None:
        """Notes that from now on every revocation is told: what was known before must be checked again."""
        self._generation += 1
        self._watching = True
        self._heard = self._clock()

    def heard(self, key_ids: Iterable[str] = ()) -> None:
        """Notes that the watch has spoken, and drops the keys that it names."""
        self._heard = self._clock()
        for key_id in key_ids:
            digest = self._by_id.get(key_id)
            if digest is not None:
                self._forget(digest)
            if self._checks:
                self._announced.add(key_id)

    def watch_lost(self) -> None:
        """Notes that the watch has ended. Idempotent."""
        self._watching = False

    async def close(self) -> None:
        """Cancels the checks that are under way."""
        checks = list(self._checks.values())
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)

    async def _first_check(self, key: str, digest: bytes) -> Caller:
        if digest not in self._checks and len(self._checks) >= self._max_checks:
            raise Unavailable(CONFIG_SVC, retry_after=1.0)
        try:
            return await self._check_once(key, digest)
        except ServiceError as error:
            if error.code in UNREACHABLE:
                raise Unavailable(CONFIG_SVC, retry_after=1.0) from None
            raise

    async def _check_once(self, key: str, digest: bytes) -> Caller:
        # However many requests want it: one check at a time for each key, which outlives the request that asked first.
        return await asyncio.shield(self._checks.get(digest) or self._start_check(key, digest))

    def _start_check(self, key: str, digest: bytes) -> asyncio.Task[Caller]:
        check = self._checks[digest] = asyncio.get_running_loop().create_task(self._check(key, digest))
        check.add_done_callback(lambda done: self._check_ended(digest, done))
        return check

    async def _check(self, key: str, digest: bytes) -> Caller:
        for _ in range(_ATTEMPTS):
            generation, started = self._generation, self._clock()
            try:
                checked = await self._checker.check(key)
            except Unauthenticated:
                self._forget(digest)
                self._refuse(digest)
                raise
            self._away_until = float("-inf")
            # A revocation that was told while the answer was on its way may be newer than the answer, and so may one
            # that a watch which began meanwhile does not tell.
            if checked.caller.id not in self._announced and generation == self._generation:
                break
            self._announced.discard(checked.caller.id)
        entry = _Known(key, digest, checked, started, generation)
        self._keep(entry)
        self._require_not_ended(entry)
        return entry.caller

    def _check_ended(self, digest: bytes, check: asyncio.Task[Caller]) -> None:
        del self._checks[digest]
        if not self._checks:
            self._announced.clear()
        if not check.cancelled() and (error := check.exception()) is not None and not isinstance(error, ServiceError):
            log.error("unexpected exception", exc_info=error)

    def _stale(self, entry: _Known) -> Caller:
        known = self._known.get(entry.digest)  # the check may have ended just now, after all
        if known is None:
            raise Unauthenticated  # it was revoked meanwhile
        self._require_not_ended(known)
        if self._clock() - self._confirmed(known) > self._times.max_age:
            raise Unavailable(CONFIG_SVC, retry_after=1.0)
        return known.caller

    def _confirmed(self, entry: _Known) -> float:
        # While the watch was up, everything known was confirmed by its silence.
        return max(entry.checked, self._heard) if entry.generation == self._generation else entry.checked

    def _require_not_ended(self, entry: _Known) -> None:
        if entry.expires is not None and entry.expires <= self._wall():
            raise Unauthenticated

    def _keep(self, entry: _Known) -> None:
        self._known[entry.digest] = entry
        self._known.move_to_end(entry.digest)
        self._by_id[entry.caller.id] = entry.digest
        self._refused.pop(entry.digest, None)
        if len(self._known) > self._limit:
            self._forget(next(iter(self._known)))

    def _forget(self, digest: bytes) -> None:
        entry = self._known.pop(digest, None)
        if entry is not None:
            self._by_id.pop(entry.caller.id, None)

    def _refuse(self, digest: bytes) -> None:
        self._refused[digest] = self._clock() + self._times.refusal
        self._refused.move_to_end(digest)
        if len(self._refused) > self._limit:
            self._refused.popitem(last=False)
