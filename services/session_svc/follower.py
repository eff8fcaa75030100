"""Follows the changes of agents, and removes the sessions of deleted ones. Every replica follows independently, and
repeating the work of another is harmless. A change is processed before its cursor is stored, so if a replica dies in
between, another one processes the change.
"""

import contextlib
import time

import structlog

from contract.reasons import Reason
from servicekit.backoff import Backoff
from servicekit.errors import ServiceError
from session_svc.metrics import Metrics
from session_svc.model.session import AgentIncarnation, Purge
from session_svc.ports import AgentStore, Change, ChangeKind, ConfigFeed
from session_svc.sessions import Sessions

FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 5.0

log = structlog.get_logger("session_svc.follower")


class Follower:
    """Keeps sessions in step with the agents they belong to."""

    def __init__(self, feed: ConfigFeed, sessions: Sessions, agents: AgentStore, metrics: Metrics) -> None:
        self._feed = feed
        self._sessions = sessions
        self._agents = agents
        self._metrics = metrics
        self._attempts = Backoff(FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS)

    async def run(self) -> None:
        """Follows until cancelled; retries with backoff while config_svc or the store is unavailable."""
        async for _ in self._attempts:
            try:
                await self._follow(await self._agents.cursor())
            except ServiceError as error:
                # Not a cursor of config_svc: something else wrote the key.
                if error.reason in (Reason.CURSOR_TOO_OLD, Reason.INVALID_FIELD):
                    await self._start_over()
                else:
                    log.info("config_feed_down", reason=error.reason)
            self._metrics.follower(False)

    async def _start_over(self) -> None:
        with contextlib.suppress(ServiceError):
            await self._follow("")

    async def _follow(self, cursor: str) -> None:
        known = cursor
        async with contextlib.aclosing(self._feed.changes(cursor)) as changes:
            async for change in changes:
                self._attempts.reset()
                self._metrics.follower(True)
                self._metrics.followed(time.time())
                if not known:
                    # Earlier changes are found by checking every agent, after the current position is stored.
                    await self._reconcile()
                await self._apply(change)
                if change.cursor != known:
                    await self._agents.keep_cursor(change.cursor)
                    known = change.cursor

    async def _apply(self, change: Change) -> None:
        if change.agent is None:
            return
        if change.kind is ChangeKind.CREATED:
            await self._reopen(change.agent)
        # A deletion may be outdated: sessions of an agent that was undeleted since must stay.
        elif not await self._feed.exists(change.agent):
            await self._remove(change.agent)

    async def _reconcile(self) -> None:
        for agent in await self._agents.agents():
            await self._reopen(agent)

    async def _reopen(self, agent: AgentIncarnation) -> None:
        """Removes the fence of an existing agent, and sets it for others, since a creation may be outdated."""
        if await self._feed.exists(agent):
            await self._agents.unfence(agent)
            # If it was deleted in between, the removed fence was a newer one, of another replica.
            if await self._feed.exists(agent):
                return
        await self._remove(agent)

    async def _remove(self, agent: AgentIncarnation) -> None:
        removed = await self._sessions.purge(Purge(agent.project, agent.agent_id, agent.agent_uid), fence=True)
        log.info(
            "sessions_of_deleted_agent_removed",
            project=agent.project,
            agent_id=agent.agent_id,
            sessions=removed.sessions,
        )
