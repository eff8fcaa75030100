"""The cache of agent configs, updated by the watch, with a bounded age (invariant 5)."""

import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from cachetools import LRUCache

from chat_gateway.clients.config_client import ChangeKind, ConfigChange, ConfigClient
from chat_gateway.clients.stubs import CONFIG_SVC
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.not_found import AgentNotFound
from contract.reasons import Reason
from servicekit.backoff import Backoff
from servicekit.errors import ServiceError
from servicekit.watched_cache import Freshness, WatchedCache

RECONNECT_SECONDS = 0.2

log = structlog.get_logger(__name__)

_Key = tuple[str, str]
"""Project and agent id."""


@dataclass(frozen=True, slots=True)
class WatchTimes:
    """In seconds."""

    recheck_after: float = 5.0
    """While the watch is down, a config confirmed longer ago is read again before use."""
    max_age: float = 900.0
    """While config_svc is unreachable, a config confirmed longer ago is no longer used."""
    heartbeat: float = 1.5
    silence: float = 4.5
    """A watch that is silent for this long counts as down.

    Less than `recheck_after`, so that a stuck watch extends the use of a config no longer than a watch known to be
    down.
    """
    unreachable_pause: float = 1.0
    """After a read that found config_svc unreachable, no turn tries again for this long."""
    reconnect: float = RECONNECT_SECONDS

    def freshness(self) -> Freshness:
        """Returns the times of a cache."""
        return Freshness(
            silence=self.silence,
            recheck_after=self.recheck_after,
            max_age=self.max_age,
            unreachable_pause=self.unreachable_pause,
        )


class ConfigDirectory:
    """The port `Configs` over config_svc, with a cache, so that a turn needs no call for its config. While the watch is
    up, cached configs are current, because changes are pushed. While it is down, entries older than `recheck_after` are
    confirmed by a read. While config_svc is unreachable, entries are used up to `max_age` (static stability).
    `on_deleted` is called with every agent config whose deletion the watch reports.
    """

    def __init__(
        self,
        client: ConfigClient,
        times: WatchTimes,
        *,
        limit: int = 50_000,
        on_deleted: Callable[[AgentConfig], None] = lambda config: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._times = times
        self._on_deleted = on_deleted
        self._configs: WatchedCache[_Key, AgentConfig] = WatchedCache(
            times.freshness(),
            peer=CONFIG_SVC,
            absent=lambda key: AgentNotFound(key[1]),
            name_of=lambda key, config: key,
            limit=limit,
            clock=clock,
        )
        self._revisions: LRUCache[tuple[str, int], AgentConfig] = LRUCache(limit)
        self._cursor = ""
        self._lag = 0.0

    @property
    def watching(self) -> bool:
        """Whether the watch is up: its last message is at most `silence` old."""
        return self._configs.watching

    @property
    def silence(self) -> float:
        """Seconds since the watch's last message; infinite before the first."""
        return self._configs.silence

    @property
    def lag(self) -> float:
        """Seconds from the commit of the last change, by config_svc's clock, to its arrival; 0 before there is one."""
        return self._lag

    def __len__(self) -> int:
        return len(self._configs)

    async def current(self, project: str, agent_id: str) -> AgentConfig:
        """Returns the agent's config, as fresh as the class promises. Raises `AgentNotFound`, `Unavailable`."""
        key = (project, agent_id)
        config = self._configs.fresh(key)
        if config is not None:
            return config
        return await self._configs.get(key, lambda: self._read(key))

    async def at_revision(self, current: AgentConfig, revision: int) -> AgentConfig:
        """Returns one revision. Revisions never change, so they stay cached while there is room."""
        if revision == current.revision:
            return current
        key = (current.uid, revision)
        kept = self._revisions.get(key)
        if kept is None:
            kept = await self._client.get(current.project, current.id, uid=current.uid, revision=revision)
            self._revisions[key] = kept
        return kept

    def forget(self, project: str, agent_id: str, uid: str) -> None:
        """Drops the cached config of a deleted agent."""
        self._configs.remove((project, agent_id), only_if=lambda config: config.uid == uid)

    async def close(self) -> None:
        """Cancels running reads."""
        await self._configs.close()

    async def follow(self) -> None:
        """Follows the watch for ever, resuming where it left off; meant to be a background task."""
        async for _ in Backoff(self._times.reconnect, self._times.reconnect):
            try:
                await self._follow_once()
            except ServiceError as error:
                if error.reason == Reason.CURSOR_TOO_OLD:
                    self._cursor = ""
                log.info("config_watch_down", reason=error.reason)
            self._configs.watch_lost()

    async def _follow_once(self) -> None:
        # A resumed watch first sends missed changes, then a heartbeat: only then is it up. One without a cursor starts
        # at the present.
        behind, first = bool(self._cursor), True
        changes = self._client.watch(self._cursor, heartbeat=self._times.heartbeat, silence=self._times.silence)
        async with aclosing(changes):
            async for change in changes:
                if not self._cursor:
                    self._configs.watch_began()
                self._apply(change)
                behind = behind and (first or change.kind is not ChangeKind.HEARTBEAT)
                first = False
                if not behind:
                    self._configs.watch_resumed()

    def _apply(self, change: ConfigChange) -> None:
        self._cursor = change.cursor
        config = change.config
        if config is None:
            return
        if change.time is not None:
            self._lag = max((datetime.now(UTC) - change.time).total_seconds(), 0.0)
        if change.kind is ChangeKind.DELETED:
            self.forget(config.project, config.id, config.uid)
            self._on_deleted(config)
        else:
            key = (config.project, config.id)
            self._configs.update(key, config, newer_than=lambda known: _is_at_least(config, known))

    async def _read(self, key: _Key) -> AgentConfig | None:
        try:
            return await self._client.get(*key)
        except ServiceError as error:
            if error.reason == Reason.AGENT_NOT_FOUND:
                return None
            raise


def _is_at_least(one: AgentConfig, other: AgentConfig) -> bool:
    return (one.create_time, one.revision) >= (other.create_time, other.revision)
