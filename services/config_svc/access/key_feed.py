"""The watch of API keys: every gateway learns of a revocation well within a second.

Like the feed of agent configs (`agents/change_feed.py`), and simpler, since nobody resumes: whoever opens a stream
forgets what it knew. Ends of keys are numbered in their own transaction under a lock that is held until the commit is
visible, so reading "over the last number" skips nothing, also not one that was held open. One reader a process is woken
by NOTIFY and reads at least four times a second, so that a lost notification costs 250 ms at most.

A heartbeat says more than that the connection is alive: it is sent only when the database was read shortly before. So a
gateway that gets one knows all that was committed until then, and one that gets none has to ask again.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timedelta

import structlog

from config_svc.following import Following, checked_interval
from config_svc.metrics import Metrics
from config_svc.model.errors import WatcherTooSlow
from config_svc.ports.access import KeyChange, KeyTail
from config_svc.ports.store import Store
from servicekit.errors import ServiceError, Unavailable

POLL = 0.25
PAGE = 500
BUFFER = 10_000
MIN_HEARTBEAT = timedelta(milliseconds=50)
MAX_HEARTBEAT = timedelta(seconds=60)
DEFAULT_HEARTBEAT = timedelta(milliseconds=250)

_BACKOFF = 0.25

log = structlog.get_logger("config_svc.access_feed")


class AccessFeed(Following):
    """Follows the ends of keys and serves watches. A watch that falls more than `buffer` ends behind is cut off.

    The database is read every `poll` seconds at least; a heartbeat says that this was done twice as long ago at most.
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

    async def follow(self) -> None:
        """Follows the ends of keys for ever, through every loss of the database."""
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
        """Yields nothing at once, then ids of keys as they end, and nothing where that took longer than `heartbeat`.

        From the first on, nothing is missed. Raises InvalidArgument, WatcherTooSlow, and Unavailable when the database
        is: nobody knows what ends then.
        """
        interval = checked_interval(DEFAULT_HEARTBEAT if heartbeat is None else heartbeat, MIN_HEARTBEAT, MAX_HEARTBEAT)
        life, place = self._life, self._last
        self._check_alive(life)
        with self._metrics.access_watches.track_inprogress():
            yield []
            while True:
                await self._news_after(place, interval)
                self._check_alive(life)
                if place < self._ring_start:
                    raise WatcherTooSlow
                ended = [change.api_key_id for change in self._ring if change.sequence > place]
                place = self._last
                yield ended

    async def _news_after(self, place: int, interval: float) -> None:
        """Returns when there is news, or after `interval` seconds, but not before the database was read again."""
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
        # Streams ended when the database was lost: what they missed since is theirs to ask for.
        self._life += 1
        self._ring.clear()
        self._last = self._ring_start = await tail.newest()
        while True:
            changes = await tail.key_changes(self._last, PAGE)
            self._read_at = asyncio.get_running_loop().time()
            self._take(changes)
            self._set_followed(True)
            if len(changes) < PAGE:
                await tail.wait(self._poll)

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
