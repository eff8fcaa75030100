"""The watch: every committed change in commit order, from the outbox to every stream.

Why order is commit order: the outbox numbers a change under a lock that its transaction holds until it is visible to
everybody (migrations/versions/0001_first.py). So a reader that sees a number sees all smaller ones: reading "after the
last number" skips nothing and never waits. The alternative, reading only what is older than the oldest running
transaction (pg_snapshot_xmin), would let any long transaction, such as a dump, delay changes beyond the 250 ms that
gateways rely on. The price is that writers of agent configs commit one after another; one that stalls with the lock is
terminated by the server after `idle_in_transaction_session_timeout`.

One reader per process (`follow`) is woken by NOTIFY, or a timer if the notification was lost. It keeps the newest
changes in a ring from which all streams read. A stream that starts further back reads the outbox page by page until it
reaches the ring; one that falls out of the ring afterwards is cut off. So the cost of a stream does not depend on its
speed.

Every `poll` seconds the reader also checks which watched projects are gone. It does so before it reads changes, and a
project's last changes are committed before its row is removed, so a stream has them all when it ends.
"""

import asyncio
import base64
import binascii
import contextlib
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from config_svc.agents.watched_projects import WatchedProjects
from config_svc.following import Following, checked_interval
from config_svc.metrics import Metrics
from config_svc.model.change import Change, FeedPosition
from config_svc.model.errors import CursorTooOld, ProjectNotFound, WatcherTooSlow
from config_svc.ports.store import Store, Tail
from contract.fields import is_resource_id
from servicekit.errors import InvalidArgument, ServiceError, Unavailable, Violation

PAGE = 64
BUFFER_BYTES = 16 * 1024 * 1024
MIN_HEARTBEAT = timedelta(milliseconds=100)
MAX_HEARTBEAT = timedelta(seconds=60)
DEFAULT_HEARTBEAT = timedelta(seconds=5)

_FIRST_BACKOFF = 0.05
_MAX_BACKOFF = 1.0

log = structlog.get_logger("config_svc.feed")


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One message of a watch; without a change it is a heartbeat."""

    cursor: str
    time: datetime
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class _Watched:
    """One incarnation of a project; its changes have sequences greater than `floor`."""

    project: str
    uid: str
    floor: int

    def has(self, change: Change) -> bool:
        return change.agent_config.project == self.project and change.sequence > self.floor


class ChangeFeed(Following):
    """Follows the outbox and serves watches. `poll` is in seconds; `buffer` changes are kept, and `buffer_bytes`."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
        peer: str,
        poll: float = 1.0,
        buffer: int = 1000,
        buffer_bytes: int = BUFFER_BYTES,
        on_health: Callable[[bool], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(metrics.feed_up)
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._peer = peer
        self._poll = poll
        self._on_health = on_health
        self._buffer = buffer
        self._buffer_bytes = buffer_bytes
        self._projects = WatchedProjects(poll=poll)
        self._ring: deque[Change] = deque()
        self._ring_bytes = 0
        self._ring_start = 0
        self._head = FeedPosition("", 0, 0)

    async def follow(self) -> None:
        """Follows the outbox for ever, across losses of the database."""
        backoff = _FIRST_BACKOFF
        while True:
            try:
                async with self._store.tail() as tail:
                    await self._follow(tail)
            except ServiceError as error:
                backoff = _FIRST_BACKOFF if self._healthy else min(backoff * 2, _MAX_BACKOFF)
                self.fault = error.why if isinstance(error, Unavailable) else ""
                log.warning("feed_down", reason=error.reason, retry_in_seconds=backoff)
            finally:
                await self._set_health(False)
            await asyncio.sleep(backoff)

    async def watch(self, project: str | None, cursor: str, heartbeat: timedelta | None) -> AsyncGenerator[FeedEvent]:
        """Yields a heartbeat with the cursor of the start, then changes of `project` (None: of all) and heartbeats.

        Raises InvalidArgument, CursorTooOld, WatcherTooSlow, ProjectNotFound if the project does not exist or is
        deleted (after its last change), and Unavailable while the database is.
        """
        interval = checked_interval(DEFAULT_HEARTBEAT if heartbeat is None else heartbeat, MIN_HEARTBEAT, MAX_HEARTBEAT)
        asked = _read_cursor(cursor) if cursor else None
        position = _start(await self._store.feed_position(), asked)
        watched = await self._watched(project) if project is not None else None
        with self._metrics.watches.track_inprogress(), self._watching(watched):
            async with contextlib.aclosing(self._stream(watched, position, interval)) as events:
                async for event in events:
                    yield event

    async def _watched(self, project: str) -> _Watched:
        found = await self._store.project(project) if is_resource_id(project) else None
        if found is None:
            raise ProjectNotFound(project)
        # An earlier project of this id is a different one, which readers of this one must not see.
        return _Watched(project, found.uid, await self._store.first_change(project))

    def _watching(self, watched: _Watched | None) -> contextlib.AbstractContextManager[None]:
        return self._projects.watching(watched.uid) if watched is not None else contextlib.nullcontext()

    async def _stream(
        self, watched: _Watched | None, start: FeedPosition, interval: float
    ) -> AsyncGenerator[FeedEvent]:
        loop = asyncio.get_running_loop()
        place, live = start.last, False
        self._check_alive(start.feed)
        yield self._heartbeat(start.feed, place)
        beat = loop.time() + interval
        while True:
            moved = self._moved
            self._check_alive(start.feed)
            if place >= self._ring_start:
                live, batch, reached = True, self._newer(place), self._head.last
            elif live:
                raise WatcherTooSlow
            else:
                batch, reached = await self._page(place)
            for change in batch:
                place = change.sequence
                if watched is None or watched.has(change):
                    yield FeedEvent(_make_cursor(start.feed, place), change.time, change)
                    beat = loop.time() + interval
            place = max(place, reached)
            if loop.time() >= beat:
                yield self._heartbeat(start.feed, place)
                beat = loop.time() + interval
            if live and place >= self._head.last:
                if watched is not None and self._projects.ended(watched.uid):
                    raise ProjectNotFound(watched.project)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(beat):
                        await moved.wait()

    async def _follow(self, tail: Tail) -> None:
        position = await tail.position()
        head = self._head
        if head.feed != position.feed or not position.compacted <= head.last <= position.last:
            # The first connection, another database, or one that lost commits: the ring is invalid.
            self._ring.clear()
            self._ring_bytes = 0
            self._ring_start = position.last
            self._head = position
        gone: Collection[str] = ()
        while True:
            gone = gone or await self._projects.gone(tail)
            changes = await tail.changes(self._head.last, PAGE)
            self._take(changes)
            await self._set_health(True)
            if len(changes) < PAGE:
                if gone:
                    self._projects.end(gone)
                    self._wake()
                    gone = ()
                await tail.wait(self._poll)

    def _take(self, changes: Sequence[Change]) -> None:
        now = self._clock()
        for change in changes:
            self._ring.append(change)
            self._ring_bytes += change.agent_config.spec.weight
            while len(self._ring) > self._buffer or (self._ring_bytes > self._buffer_bytes and len(self._ring) > 1):
                gone = self._ring.popleft()
                self._ring_start = gone.sequence
                self._ring_bytes -= gone.agent_config.spec.weight
            self._metrics.feed_delay.observe(max((now - change.time).total_seconds(), 0.0))
        if changes:
            self._head = FeedPosition(self._head.feed, changes[-1].sequence, self._head.compacted)
            self._wake()

    async def _page(self, place: int) -> tuple[Sequence[Change], int]:
        """Reads the next page of the outbox, and its end even without changes."""
        behind = self._ring_start
        changes = await self._store.changes(place, PAGE)
        # Checked after reading: changes compacted before would be missing from the page.
        if (await self._store.feed_position()).compacted > place:
            raise CursorTooOld
        return changes, place if len(changes) == PAGE else behind

    def _newer(self, place: int) -> Sequence[Change]:
        newer: list[Change] = []
        for change in reversed(self._ring):
            if change.sequence <= place:
                break
            newer.append(change)
        newer.reverse()
        return newer

    def _check_alive(self, feed: str) -> None:
        if not self._healthy:
            raise Unavailable(self._peer)
        if self._head.feed != feed:
            raise CursorTooOld

    def _heartbeat(self, feed: str, place: int) -> FeedEvent:
        return FeedEvent(_make_cursor(feed, place), self._clock())

    async def _set_health(self, healthy: bool) -> None:
        if self._set_followed(healthy) and self._on_health is not None:
            await self._on_health(healthy)


def _start(position: FeedPosition, asked: FeedPosition | None) -> FeedPosition:
    if asked is None:
        return position
    if asked.feed != position.feed or not position.compacted <= asked.last <= position.last:
        raise CursorTooOld
    return asked


def _make_cursor(feed: str, sequence: int) -> str:
    return base64.urlsafe_b64encode(uuid.UUID(feed).bytes + sequence.to_bytes(8, "big")).decode()


def _read_cursor(cursor: str) -> FeedPosition:
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raw = b""
    if len(raw) != 24:
        raise InvalidArgument([Violation("cursor", "is not one that a watch has answered with")])
    return FeedPosition(str(uuid.UUID(bytes=raw[:16])), int.from_bytes(raw[16:], "big"), 0)
