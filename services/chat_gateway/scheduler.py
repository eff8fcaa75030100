"""Bounds the running and waiting turns of this process, with a named error beyond that."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Self

from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.errors import TurnQueueFull
from servicekit.errors import Draining

_NO_AGENT = ""


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Bounds of one gateway process, in turns; `agent_*` are for each agent."""

    running: int = 256
    queued: int = 512
    agent_running: int = 128
    agent_queued: int = 256
    retry_after: float = 1.0
    """Seconds after which a refused caller may try again."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a gateway is."""

    running: int
    queued: int
    limits: TurnLimits


@dataclass(slots=True)
class _AgentTurns:
    entered: int = 0
    running: int = 0


@dataclass(slots=True)
class _Waiter:
    agent: _AgentTurns
    limit: int
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Scheduler:
    """Counts the turns of this process.

    A turn first *enters* (which is where it is refused, before it has cost anything), then takes a *slot* for as long
    as it uses a model. In between it is queued: for its session's lease, or for the slot. Slots are given in order of
    arrival, except that an agent at its own limit does not hold up others.
    """

    def __init__(self, limits: TurnLimits) -> None:
        self._limits = limits
        self._entered = 0
        self._running = 0
        self._agents: dict[str, _AgentTurns] = {}
        self._waiters: deque[_Waiter] = deque()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def load(self) -> Load:
        """How busy this process is right now."""
        return Load(self._running, self._entered - self._running, self._limits)

    @property
    def draining(self) -> bool:
        """Whether new turns are refused."""
        return self._draining

    @property
    def has_room(self) -> bool:
        """Whether a new turn would not have to wait."""
        return not self._draining and self._entered < self._limits.running

    def entered(self, config: AgentConfig | None) -> "EnteredTurn":
        """Counts a turn while open, without waiting. Entering raises `TurnQueueFull` or `Draining`. Work without an
        agent is bounded together, as one agent.
        """
        return EnteredTurn(self, _NO_AGENT if config is None else config.uid, self._agent_limit(config))

    def slot(self, turn: "EnteredTurn | None") -> "_Slot":
        """Waits for a slot and holds it while open. Only within `entered`; the turn's timeout bounds the wait.

        Without a turn there is nothing to wait for: its caller's turn holds the slot for both.
        """
        return _Slot(self, turn)

    async def drain(self, timeout: float) -> bool:
        """Refuses new turns from now on and waits for the others; returns whether all ended in time."""
        self._draining = True
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _enter(self, uid: str, agent_running: int) -> _AgentTurns:
        limits = self._limits
        if self._draining:
            raise Draining
        if self._entered >= limits.running + limits.queued:
            raise TurnQueueFull("gateway", limits.running, limits.retry_after)
        agent = self._agents.get(uid)
        if agent is None:
            agent = self._agents[uid] = _AgentTurns()
        elif agent.entered >= agent_running + limits.agent_queued:
            raise TurnQueueFull("agent", agent_running, limits.retry_after)
        self._entered += 1
        agent.entered += 1
        self._idle.clear()
        return agent

    def _leave(self, uid: str, agent: _AgentTurns) -> None:
        self._entered -= 1
        agent.entered -= 1
        if not agent.entered:
            del self._agents[uid]
        if not self._entered:
            self._idle.set()

    def _agent_limit(self, config: AgentConfig | None) -> int:
        own = config.max_concurrent_turns if config is not None else None
        return self._limits.agent_running if own is None else min(own, self._limits.running)

    async def _take_slot(self, agent: _AgentTurns, limit: int) -> None:
        if self._running < self._limits.running and agent.running < limit:
            self._take(agent)
            return
        waiter = _Waiter(agent, limit)
        self._waiters.append(waiter)
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self._release(agent)
            else:
                self._waiters.remove(waiter)
            raise

    def _take(self, agent: _AgentTurns) -> None:
        self._running += 1
        agent.running += 1

    def _release(self, agent: _AgentTurns) -> None:
        self._running -= 1
        agent.running -= 1
        if self._waiters:
            self._grant()

    def _grant(self) -> None:
        passed_over: list[_Waiter] = []
        while self._waiters and self._running < self._limits.running:
            waiter = self._waiters.popleft()
            if waiter.granted.cancelled():
                # Its task has not run yet and will check this itself.
                passed_over.append(waiter)
            elif waiter.agent.running < waiter.limit:
                self._take(waiter.agent)
                waiter.granted.set_result(None)
            else:
                passed_over.append(waiter)
        self._waiters.extendleft(reversed(passed_over))


class EnteredTurn:
    """A turn that has entered, while open."""

    __slots__ = ("_scheduler", "_uid", "agent", "limit")

    def __init__(self, scheduler: Scheduler, uid: str, limit: int) -> None:
        self._scheduler = scheduler
        self._uid = uid
        self.limit = limit

    def __enter__(self) -> Self:
        self.agent = self._scheduler._enter(self._uid, self.limit)
        return self

    def __exit__(self, *error: object) -> None:
        self._scheduler._leave(self._uid, self.agent)


class _Slot:
    __slots__ = ("_scheduler", "_turn")

    def __init__(self, scheduler: Scheduler, turn: EnteredTurn | None) -> None:
        self._scheduler = scheduler
        self._turn = turn

    async def __aenter__(self) -> None:
        if self._turn is not None:
            await self._scheduler._take_slot(self._turn.agent, self._turn.limit)

    async def __aexit__(self, *error: object) -> None:
        if self._turn is not None:
            self._scheduler._release(self._turn.agent)
