"""What this gateway knows of agent configs: cached, pushed by the watch, and honest about its age (invariant 5)."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from chat_gateway.clients.config_client import ChangeKind, ConfigChange, ConfigClient
from chat_gateway.clients.stubs import CONFIG_SVC
from chat_gateway.model.errors import AgentNotFound
from chat_gateway.model.turn import AgentConfig
from contract.reasons import Reason
from servicekit.errors import UNREACHABLE, ServiceError, Unavailable

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Freshness:
    """In seconds."""

    recheck_after: float = 5.0
    """While the watch is down, a config confirmed longer ago is read again before use."""
    max_age: float = 900.0
    """While config_svc is away, a config confirmed longer ago is not used any more."""
    heartbeat: float = 1.0
    silence: float = 3.0
    """A watch that says nothing for this long counts as down."""
    away_pause: float = 1.0
    """After a read that found config_svc away, no turn tries again for this long."""
    reconnect_pause: float = 0.2


@dataclass(frozen=True, slots=True)
class _Known:
    config: AgentConfig
    confirmed: float
    epoch: int
    """Which unbroken run of the watch it was confirmed in."""


class ConfigDirectory:
    """The port `Configs` over config_svc, with the cache that makes a config cost nothing on a turn's path.

    While the watch is up, what is cached is current: a change arrives as a push. While it is down, entries are
    confirmed by a read when they are older than `recheck_after`. While config_svc is away altogether, entries serve on
    up to `max_age` (static stability). `on_deleted` is called with every agent config whose deletion the watch tells.
    """

    def __init__(
        self,
        client: ConfigClient,
        freshness: Freshness,
        *,
        limit: int = 50_000,
        on_deleted: Callable[[AgentConfig], None] = lambda config: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._freshness = freshness
        self._limit = limit
        self._on_deleted = on_deleted
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._revisions: OrderedDict[tuple[str, int], AgentConfig] = OrderedDict()
        self._reads: dict[tuple[str, str], asyncio.Task[AgentConfig]] = {}
        self._pushed: set[tuple[str, str]] = set()
        self._cursor = ""
        self._epoch = 0
        self._heard = float("-inf")
        self._lag = 0.0
        self._streaming = False
        self._away_until = float("-inf")

    @property
    def watching(self) -> bool:
        """Whether the watch is up: it has spoken within `silence`."""
        return self._streaming and self._clock() - self._heard <= self._freshness.silence

    @property
    def silence(self) -> float:
        """Seconds since the watch last spoke; infinite before it has."""
        return self._clock() - self._heard

    @property
    def lag(self) -> float:
        """Seconds from the commit of the last change, by config_svc's clock, to its arrival; 0 before there is one."""
        return self._lag

    def __len__(self) -> int:
        return len(self._known)

    async def current(self, project: str, agent_id: str) -> AgentConfig:
        """See `Configs.current`."""
        key = (project, agent_id)
        known = self._known.get(key)
        if known is not None and self._is_fresh(known):
            self._known.move_to_end(key)
            return known.config
        return await self._confirmed(key, known)

    async def at_revision(self, current: AgentConfig, revision: int) -> AgentConfig:
        """See `Configs.at_revision`. Revisions never change, so they are kept as long as there is room."""
        if revision == current.revision:
            return current
        key = (current.uid, revision)
        kept = self._revisions.get(key)
        if kept is None:
            kept = await self._client.get(current.project, current.id, uid=current.uid, revision=revision)
            self._revisions[key] = kept
            if len(self._revisions) > self._limit:
                self._revisions.popitem(last=False)
        return kept

    def forget(self, project: str, agent_id: str, uid: str) -> None:
        """See `Configs.forget`."""
        known = self._known.get((project, agent_id))
        if known is not None and known.config.uid == uid:
            del self._known[project, agent_id]

    async def close(self) -> None:
        """Cancels the reads that are under way."""
        reads = list(self._reads.values())
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

    async def follow(self) -> None:
        """Follows the watch for ever, resuming where it left off; meant to be a background task."""
        while True:
            try:
                await self._follow_once()
            except ServiceError as error:
                if error.reason == Reason.CURSOR_TOO_OLD:
                    self._cursor = ""
                log.info("config_watch_down", reason=error.reason)
            self._streaming = False
            await asyncio.sleep(self._freshness.reconnect_pause)

    async def _follow_once(self) -> None:
        # What was missed comes first when a watch resumes, and a heartbeat after it: only then is it up.
        behind, first = bool(self._cursor), True
        changes = self._client.watch(self._cursor, self._freshness.heartbeat)
        async with aclosing(changes):
            while True:
                try:
                    async with asyncio.timeout(self._freshness.silence):
                        change = await anext(changes, None)
                except TimeoutError:
                    raise Unavailable(CONFIG_SVC) from None
                if change is None:
                    return
                self._apply(change)
                behind = behind and (first or change.kind is not ChangeKind.HEARTBEAT)
                first = False
                if not behind:
                    self._heard = self._clock()
                    self._streaming = True

    def _apply(self, change: ConfigChange) -> None:
        if not self._cursor:
            # The watch starts at the present: what was read before may have changed unseen.
            self._epoch += 1
        self._cursor = change.cursor
        config = change.config
        if config is None:
            return
        if change.time is not None:
            self._lag = max((datetime.now(UTC) - change.time).total_seconds(), 0.0)
        key = (config.project, config.id)
        if key in self._reads:
            self._pushed.add(key)
        if change.kind is ChangeKind.DELETED:
            self.forget(config.project, config.id, config.uid)
            self._on_deleted(config)
        elif (known := self._known.get(key)) is not None and not _is_newer(known.config, config):
            self._keep(key, config)

    async def _confirmed(self, key: tuple[str, str], known: _Known | None) -> AgentConfig:
        if known is not None and self._clock() < self._away_until:
            return self._stale(known)
        try:
            return await self._read_once(key)
        except ServiceError as error:
            if error.reason == Reason.AGENT_NOT_FOUND:
                self._known.pop(key, None)
                raise AgentNotFound(key[1]) from None
            if error.code not in UNREACHABLE:
                raise
            self._away_until = self._clock() + self._freshness.away_pause
            if known is None:
                raise Unavailable(CONFIG_SVC, retry_after=1.0) from None
            return self._stale(known)

    def _stale(self, known: _Known) -> AgentConfig:
        if self._age(known) > self._freshness.max_age:
            raise Unavailable(CONFIG_SVC, retry_after=1.0)
        return known.config

    async def _read_once(self, key: tuple[str, str]) -> AgentConfig:
        # However many turns want it: one read at a time for each agent, which outlives the turn that asked first.
        read = self._reads.get(key)
        if read is None:
            read = self._reads[key] = asyncio.get_running_loop().create_task(self._read(key))
            read.add_done_callback(lambda done: self._read_ended(key, done))
        return await asyncio.shield(read)

    async def _read(self, key: tuple[str, str]) -> AgentConfig:
        while True:
            self._pushed.discard(key)
            epoch = self._epoch
            config = await self._client.get(*key)
            # A change that was pushed while the answer was on its way may be newer than the answer, and so may one
            # that a watch which began meanwhile does not tell.
            if key not in self._pushed and epoch == self._epoch:
                self._keep(key, config)
                return config

    def _read_ended(self, key: tuple[str, str], read: asyncio.Task[AgentConfig]) -> None:
        del self._reads[key]
        if not read.cancelled():
            # Every turn that wanted it may be gone: its error is then nobody's.
            read.exception()

    def _keep(self, key: tuple[str, str], config: AgentConfig) -> None:
        self._known[key] = _Known(config, self._clock(), self._epoch)
        self._known.move_to_end(key)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)

    def _is_fresh(self, known: _Known) -> bool:
        if known.epoch != self._epoch:
            return False
        return self.watching or self._age(known) < self._freshness.recheck_after

    def _age(self, known: _Known) -> float:
        # While the watch was up, everything known was confirmed by its silence.
        heard = self._heard if known.epoch == self._epoch else known.confirmed
        return self._clock() - max(known.confirmed, heard)


def _is_newer(one: AgentConfig, other: AgentConfig) -> bool:
    return (one.create_time, one.revision) > (other.create_time, other.revision)
