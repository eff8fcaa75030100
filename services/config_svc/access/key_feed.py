"""The watch of API keys, by which every gateway learns of revocations within a second.

Like the feed of agent configs (`agents/change_feed.py`), but simpler, since streams are not resumed: clients drop what
they knew. Ends of keys are numbered in their transaction under a lock held until the commit is visible, so reading
"after the last number" skips nothing, not even a transaction that stays open. One reader a process is woken by NOTIFY
and, while anybody watches, reads at least four times a second, so that a lost notification costs 250 ms at most.

A heartbeat is sent only if the database was read shortly before. So a gateway that gets one knows everything committed
until then, and one that gets none has to check again.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from datetime import datetime, timedelta

import structlog

from config_svc.following import Following, checked_interval
from config_svc.metrics import Metrics
from config_svc.model.errors import WatcherTooSlow
from config_svc.ports.access import KeyChange, KeyTail
from config_svc.ports.store import Store
from servicekit.errors import ServiceError, Unavailable

POLL = 0.25
UNWATCHED_POLLS = 4
"""Number of poll intervals between two reads while there is no watch."""
PAGE = 500
BUFFER = 10_000
MIN_HEARTBEAT = timedelta(milliseconds=50)
MAX_HEARTBEAT = timedelta(seconds=60)
DEFAULT_HEARTBEAT = timedelta(milliseconds=250)

_BACKOFF = 0.25

log = structlog.get_logger("config_svc.access_feed")


class AccessFeed(Following):
    """Follows the ends of keys and serves watches. A watch that falls more than `buffer` ends behind is cut off.

    While there are watches, the database is read at least every `poll` seconds; a heartbeat guarantees a read within
    twice that time, and so the first one after a time without watches may be late.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
        peer: str,
        poll: float = POLL,
        buffer: int = BUFFER,
    ) -> None:
        super().__init__(metrics.access_up)
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._peer = peer
        self._poll = poll
        self._buffer = buffer
        self._ring: deque[KeyChange] = deque()
        self._ring_start = 0
        self._last = 0
        self._life = 0
        self._read_at = 0.0
        self._watches = 0

    async def follow(self) -> None:
        """Follows the ends of keys for ever, across losses of the database."""
        while True:
            try:
                async with self._store.key_tail() as tail:
                    await self._follow(tail)
            except ServiceError as error:
                log.warning("key_feed_down", reason=error.reason, retry_in_seconds=_BACKOFF)
            finally:
                self._set_followed(False)
            await asyncio.sleep(_BACKOFF)

    async def watch(self, heartbeat: timedelta | None) -> AsyncGenerator[Sequence[str]]:
        """Yields an empty list at once, then ids of keys as they end, and an empty list as heartbeat. From the first
        on, nothing is missed. Raises InvalidArgument, WatcherTooSlow, and Unavailable while the database is.
        """
        interval = checked_interval(DEFAULT_HEARTBEAT if heartbeat is None else heartbeat, MIN_HEARTBEAT, MAX_HEARTBEAT)
        life, place = self._life, self._last
        self._check_alive(life)
        with self._metrics.access_watches.track_inprogress(), self._counted():
            yield []
            while True:
                await self._news_after(place, interval)
                self._check_alive(life)
                if place < self._ring_start:
                    raise WatcherTooSlow
                ended = [change.api_key_id for change in self._ring if change.sequence > place]
                place = self._last
                yield ended

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._watches += 1
        try:
            yield
        finally:
            self._watches -= 1

    async def _news_after(self, place: int, interval: float) -> None:
        """Returns on a change, or after `interval` seconds, but not before the database was read again."""
        loop = asyncio.get_running_loop()
        beat = loop.time() + interval
        while self._healthy and place == self._last:
            now = loop.time()
            if now >= beat and now - self._read_at < 2 * self._poll:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(beat if now < beat else now + interval):
                    await self._moved.wait()

    async def _follow(self, tail: KeyTail) -> None:
        # Streams ended when the database was lost; clients check again what they missed.
        self._life += 1
        self._ring.clear()
        self._last = self._ring_start = await tail.newest()
        while True:
            changes = await tail.key_changes(self._last, PAGE)
            self._read_at = asyncio.get_running_loop().time()
            self._take(changes)
            self._set_followed(True)
            if len(changes) < PAGE:
                await tail.wait(self._poll if self._watches else UNWATCHED_POLLS * self._poll)

    def _take(self, changes: Sequence[KeyChange]) -> None:
        now = self._clock()
        for change in changes:
            self._ring.append(change)
            if len(self._ring) > self._buffer:
                self._ring_start = self._ring.popleft().sequence
            self._metrics.access_delay.observe(max((now - change.time).total_seconds(), 0.0))
        if changes:
            self._last = changes[-1].sequence
            self._wake()

    def _check_alive(self, life: int) -> None:
        if not self._healthy or self._life != life:
            raise Unavailable(self._peer)
