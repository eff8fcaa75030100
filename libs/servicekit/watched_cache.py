"""A cache of what a peer keeps, which a watch of the peer's changes keeps current, and which is honest about its age.

| state of the watch | what is used |
|---|---|
| up | what is cached: a change would have been pushed |
| down, the peer answers | what was confirmed at most `recheck_after` ago; anything older is read first |
| down, the peer is unreachable | what was confirmed at most `max_age` ago (static stability) |
| began anew, missing changes | what was read since; everything else is unconfirmed |

Silence confirms: while the watch is up, everything cached is as good as its last message. A watch that says nothing for
longer than `silence` counts as down, whether or not its stream still stands.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from cachetools import LRUCache

from servicekit.errors import UNREACHABLE, ServiceError, Unavailable
from servicekit.supervision import cancel_and_wait

RETRY_AFTER_SECONDS = 1.0

log = structlog.get_logger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Freshness:
    """For how long what is cached is good, in seconds."""

    silence: float
    """A watch that says nothing for this long counts as down."""
    recheck_after: float
    """While the watch is down, what was confirmed longer ago is read again before use."""
    max_age: float
    """While the peer is unreachable, what was confirmed longer ago is not used any more."""
    unreachable_pause: float
    """After a read of something cached that found the peer unreachable, nothing cached is read again for this long."""
    patience: float | None = None
    """How long a read of something cached is waited for before the peer counts as unreachable; None: until it fails."""


class Entry(Generic[K, V]):
    """Something cached. `removed` once the peer was heard to have it no more."""

    __slots__ = ("confirmed", "epoch", "key", "removed", "value")

    def __init__(self, key: K, value: V, confirmed: float, epoch: int) -> None:
        self.key = key
        self.value = value
        self.confirmed = confirmed
        self.epoch = epoch
        self.removed = False


class WatchedCache(Generic[K, V]):
    """Keeps at most `limit` values by key, those used least recently leave first.

    `peer` names the one who keeps them; `absent` makes the error for a key that the peer does not have. A watch may
    name values by another name than their key: `name_of` returns it. At most `max_reads` keys that are not cached are
    being read at once.

    Whoever follows the watch calls `watch_began` for one that starts at the present, `watch_resumed` for one that has
    caught up from where the last one ended, `heard` with every message, `watch_lost` at its end; and with what it says
    `update` and `remove`.
    """

    def __init__(
        self,
        freshness: Freshness,
        *,
        peer: str,
        absent: Callable[[K], ServiceError],
        name_of: Callable[[K, V], Hashable],
        limit: int,
        max_reads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._freshness = freshness
        self._peer = peer
        self._absent = absent
        self._name_of = name_of
        self._limit = limit
        self._max_reads = max_reads
        self._clock = clock
        self._keys: dict[Hashable, K] = {}
        self._entries: LRUCache[K, Entry[K, V]] = _Entries(limit, self._left)
        self._reads: dict[K, asyncio.Task[V]] = {}
        self._pushed: set[Hashable] = set()
        self._epoch = 0
        self._up = False
        self._heard = float("-inf")
        self._unreachable_until = float("-inf")

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    @property
    def up(self) -> bool:
        """Whether the stream of the watch is open, however long it has been silent."""
        return self._up

    @property
    def watching(self) -> bool:
        """Whether the watch is up: it has spoken within `Freshness.silence`, and changes are pushed at present."""
        return self._up and self.silence <= self._freshness.silence

    @property
    def silence(self) -> float:
        """Seconds since the watch last spoke; infinite before it has."""
        return self._clock() - self._heard

    @property
    def unreachable(self) -> bool:
        """Whether the last read of something cached found the peer unreachable: it is used without being read again."""
        return self._clock() < self._unreachable_until

    def fresh(self, key: K) -> V | None:
        """Returns what needs no read before use, else None."""
        entry = self._entries.get(key)
        if entry is None or entry.epoch != self._epoch:
            return None
        now = self._clock()
        if self._up and now - self._heard <= self._freshness.silence:
            return entry.value
        # While the watch was up, everything cached was confirmed by its silence.
        if now - max(entry.confirmed, self._heard) <= self._freshness.recheck_after:
            return entry.value
        return None

    async def get(self, key: K, read: Callable[[], Awaitable[V | None]]) -> V:
        """Returns the value of a key, reading it first where that has to be.

        `read` asks the peer, and returns None for what the peer does not have. However many want a key, it is read
        once at a time; the read outlives who asked first, and is made again when it may have been overtaken by a
        change. Raises what `absent` makes; `Unavailable` when it can't be known; any other `ServiceError` of `read`.
        """
        value = self.fresh(key)
        if value is not None:
            return value
        entry = self._entries.get(key)
        if entry is None:
            return await self._first_read(key, read)
        if not self.unreachable:
            try:
                async with asyncio.timeout(self._freshness.patience):
                    return await self.read_once(key, read)
            except TimeoutError:
                pass
            except ServiceError as error:
                if error.code not in UNREACHABLE:
                    raise
            self._unreachable_until = self._clock() + self._freshness.unreachable_pause
        return self._stale(entry)

    async def read_once(self, key: K, read: Callable[[], Awaitable[V | None]]) -> V:
        """Reads a key whether or not that has to be, unless it is being read; returns its value. Errors as of `get`."""
        return await asyncio.shield(self._reads.get(key) or self.start_read(key, read))

    def start_read(self, key: K, read: Callable[[], Awaitable[V | None]]) -> "asyncio.Task[V]":
        """Begins to read a key that is not being read, in the background."""
        task = self._reads[key] = asyncio.get_running_loop().create_task(self._read(key, read))
        task.add_done_callback(lambda done: self._read_ended(key, done))
        return task

    def is_being_read(self, key: K) -> bool:
        """Whether the key is being read now."""
        return key in self._reads

    def update(self, name: Hashable, value: V, *, newer_than: Callable[[V], bool]) -> None:
        """Notes a pushed change: `value` replaces what is cached, where `newer_than` is true of that."""
        self._note(name)
        key = self._keys.get(name)
        if key is None:
            return
        entry = self._entries[key]
        if newer_than(entry.value):
            # Of a watch that has yet to catch up, this may not be the last change.
            self._keep(key, value, self._clock() if self._up else entry.confirmed, entry.epoch)

    def remove(self, name: Hashable, *, only_if: Callable[[V], bool] = lambda value: True) -> None:
        """Notes that the peer has something no more; a value for which `only_if` is false is another one and stays."""
        self._note(name)
        key = self._keys.get(name)
        if key is not None and only_if(self._entries[key].value):
            self._forget(key)

    def watch_began(self) -> None:
        """Notes that from now on every change is pushed: what was known before may have changed unseen."""
        self._epoch += 1
        self.watch_resumed()

    def watch_resumed(self) -> None:
        """Notes that every change was pushed, also those since the last watch, and is from now on."""
        self._up = True
        self._heard = self._clock()

    def heard(self) -> None:
        """Notes that the watch has spoken."""
        self._heard = self._clock()

    def watch_lost(self) -> None:
        """Notes that the watch has ended. Idempotent."""
        self._up = False

    async def close(self) -> None:
        """Cancels the reads that are under way."""
        await cancel_and_wait(*self._reads.values())

    async def _first_read(self, key: K, read: Callable[[], Awaitable[V | None]]) -> V:
        if self._max_reads is not None and key not in self._reads and len(self._reads) >= self._max_reads:
            raise Unavailable(self._peer, retry_after=RETRY_AFTER_SECONDS)
        try:
            return await self.read_once(key, read)
        except ServiceError as error:
            if error.code in UNREACHABLE:
                raise Unavailable(self._peer, retry_after=RETRY_AFTER_SECONDS) from None
            raise

    async def _read(self, key: K, read: Callable[[], Awaitable[V | None]]) -> V:
        while True:
            epoch, started = self._epoch, self._clock()
            value = await read()
            if value is None:
                self._forget(key)
                raise self._absent(key)
            self._unreachable_until = float("-inf")
            # A change that was pushed while the answer was on its way may be newer than the answer, and so may one
            # that a watch which began meanwhile does not push.
            name = self._name_of(key, value)
            if epoch == self._epoch and name not in self._pushed:
                self._keep(key, value, started, epoch)
                return value
            self._pushed.discard(name)

    def _read_ended(self, key: K, read: "asyncio.Task[V]") -> None:
        del self._reads[key]
        if not self._reads:
            self._pushed.clear()
        # Everybody who wanted it may be gone: its error is then nobody's.
        if not read.cancelled() and (error := read.exception()) is not None and not isinstance(error, ServiceError):
            log.error("read_failed", peer=self._peer, exc_info=error)

    def _stale(self, entry: Entry[K, V]) -> V:
        if entry.removed:
            raise self._absent(entry.key)
        entry = self._entries.get(entry.key, entry)  # the read may have ended just now, after all
        heard = self._heard if entry.epoch == self._epoch else float("-inf")
        if self._clock() - max(entry.confirmed, heard) > self._freshness.max_age:
            raise Unavailable(self._peer, retry_after=RETRY_AFTER_SECONDS)
        return entry.value

    def _note(self, name: Hashable) -> None:
        if not self._reads:
            return
        if len(self._pushed) >= self._limit:
            # More than can be remembered: every read that is under way counts as overtaken.
            self._pushed.clear()
            self._epoch += 1
        self._pushed.add(name)

    def _keep(self, key: K, value: V, confirmed: float, epoch: int) -> None:
        self._entries[key] = Entry(key, value, confirmed, epoch)
        self._keys[self._name_of(key, value)] = key

    def _forget(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            entry.removed = True

    def _left(self, entry: Entry[K, V]) -> None:
        self._keys.pop(self._name_of(entry.key, entry.value), None)


class _Entries(LRUCache[K, Entry[K, V]]):
    """Says which entries leave, whichever way."""

    def __init__(self, limit: int, left: Callable[[Entry[K, V]], None]) -> None:
        super().__init__(limit)
        self._left = left

    def __delitem__(self, key: K) -> None:
        entry = self[key]
        super().__delitem__(key)
        self._left(entry)
