"""A small world for the turn runner: configs and sessions in memory, a provider that does what a test says."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from chat_gateway.aborts import Aborts, AbortTimes
from chat_gateway.instances import Instances
from chat_gateway.leases import LeaseTimes
from chat_gateway.limits import held
from chat_gateway.metrics import TurnMetrics
from chat_gateway.model.errors import AgentNotFound
from chat_gateway.model.turn import (
    AgentConfig,
    Begun,
    Committed,
    Delta,
    FinishReason,
    Lease,
    LimitState,
    Message,
    OnDelta,
    Sampling,
    Turn,
    TurnLimit,
    TurnRequest,
    Usage,
    begun_stateless,
)
from chat_gateway.providers.provider import ModelAnswer, ModelCall, Providers
from chat_gateway.scheduler import Scheduler, TurnLimits
from chat_gateway.templates.assistant import AssistantTemplate
from chat_gateway.templates.catalog import TemplateCatalog
from chat_gateway.turn import TurnRunner
from contract.enums import Role
from servicekit.errors import Code, RemoteError, ServiceError


def make_config(**changes: Any) -> AgentConfig:
    config = AgentConfig(
        project="default",
        id="support",
        uid="uid-1",
        revision=1,
        template_id="assistant",
        template_version="1.0.0",
        parameters={},
        instructions="You help.",
        provider="local",
        model="m",
        sampling=Sampling(),
        window_messages=40,
        idle_ttl=timedelta(minutes=30),
        max_lifetime=timedelta(hours=24),
        max_concurrent_turns=None,
        requests_per_minute=None,
        turn_timeout=None,
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return replace(config, **changes)


def asks(text: str = "hi", **changes: Any) -> TurnRequest:
    return replace(TurnRequest("support", (Message(Role.USER, text),)), **changes)


def remote(reason: str, code: Code) -> RemoteError:
    return RemoteError(reason.lower(), code=code, reason=reason)


class FakeConfigs:
    def __init__(self, *configs: AgentConfig) -> None:
        self.known = {(c.project, c.id): c for c in configs}
        self.revisions = {(c.uid, c.revision): c for c in configs}
        self.forgotten: list[str] = []

    async def current(self, project: str, agent_id: str) -> AgentConfig:
        try:
            return self.known[project, agent_id]
        except KeyError:
            raise AgentNotFound(agent_id) from None

    async def at_revision(self, current: AgentConfig, revision: int) -> AgentConfig:
        try:
            return self.revisions[current.uid, revision]
        except KeyError:
            raise remote("REVISION_NOT_FOUND", Code.NOT_FOUND) from None

    def forget(self, project: str, agent_id: str, uid: str) -> None:
        self.forgotten.append(uid)


@dataclass
class FakeSessions:
    """One session after another; errors are queued by a test and raised once each."""

    turns: dict[str, list[Turn]] = field(default_factory=dict)
    begin_errors: list[ServiceError] = field(default_factory=list)
    commit_errors: list[ServiceError] = field(default_factory=list)
    renew_errors: list[ServiceError] = field(default_factory=list)
    abort_errors: list[ServiceError] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    renewed: int = 0
    begun_uids: list[str] = field(default_factory=list)
    pinned_revision: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    replay: Turn | None = None
    commits: int = 0
    limits: list[tuple[TurnLimit, ...]] = field(default_factory=list)
    states: tuple[LimitState, ...] = ()
    aborted_limits: list[tuple[str, ...]] = field(default_factory=list)

    async def begin(
        self,
        request: TurnRequest,
        config: AgentConfig,
        turn_id: str,
        digest: bytes,
        limits: tuple[TurnLimit, ...] = (),
    ) -> Begun:
        self.begun_uids.append(config.uid)
        self.limits.append(limits)
        if self.begin_errors:
            raise self.begin_errors.pop(0)
        session_id = request.session_id or "made"
        window = tuple(m for turn in self.turns.get(session_id, []) for m in turn.messages)
        lease = self._lease(request, session_id, turn_id, 1, limits)
        return Begun(
            session_id=session_id,
            created=session_id not in self.turns,
            message_count=len(window),
            pinned_revision=self.pinned_revision,
            metadata=self.metadata,
            expire_time=datetime.now(UTC),
            lease=None if self.replay else lease,
            window=window,
            replayed=self.replay,
            limits=self.states,
        )

    async def take_limits(self, request: TurnRequest, turn_id: str, limits: tuple[TurnLimit, ...]) -> Begun:
        self.limits.append(limits)
        if self.begin_errors:
            raise self.begin_errors.pop(0)
        return begun_stateless(request, self._lease(request, "", turn_id, 0, limits), self.states)

    def _lease(
        self, request: TurnRequest, session_id: str, turn_id: str, token: int, limits: tuple[TurnLimit, ...]
    ) -> Lease:
        until = datetime.now(UTC) + timedelta(seconds=15)
        return Lease(request.project, session_id, turn_id, token, until, held(limits))

    async def renew(self, lease: Lease, hold: float) -> Lease:
        self.renewed += 1
        if self.renew_errors:
            raise self.renew_errors.pop(0)
        await asyncio.sleep(hold)
        return replace(lease, expire_time=datetime.now(UTC) + timedelta(seconds=15))

    async def commit(self, lease: Lease, turn: Turn, config: AgentConfig, request_id: str, digest: bytes) -> Committed:
        self.commits += 1
        if self.commit_errors:
            raise self.commit_errors.pop(0)
        stored = self.turns.setdefault(lease.session_id, [])
        stored.append(turn)
        return Committed(len(stored), datetime.now(UTC) + timedelta(minutes=30))

    async def abort(self, lease: Lease) -> None:
        if self.abort_errors:
            raise self.abort_errors.pop(0)
        self.aborted.append(lease.turn_id)
        self.aborted_limits.append(lease.limits)


class FakeProvider:
    """Answers `pieces`; `before` runs ahead of the answer and may wait or raise."""

    name = "local"

    def __init__(self, *pieces: str, before: Callable[[], Awaitable[None]] | None = None) -> None:
        self.pieces = pieces or ("hel", "lo")
        self.before = before
        self.calls: list[ModelCall] = []
        self.cancelled = 0

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        self.calls.append(call)
        try:
            if self.before is not None:
                await self.before()
            if on_delta is not None:
                for piece in self.pieces:
                    await on_delta(Delta(piece))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return ModelAnswer(Message(Role.ASSISTANT, "".join(self.pieces)), FinishReason.STOP, Usage(3, 2, 0), "m-2026")


class World:
    """A turn runner with everything around it in reach."""

    def __init__(
        self,
        *,
        provider: FakeProvider | None = None,
        configs: FakeConfigs | None = None,
        limits: TurnLimits | None = None,
        times: LeaseTimes | None = None,
        abort_times: AbortTimes | None = None,
        turn_timeout: float = 5.0,
        sessions: FakeSessions | None = None,
    ) -> None:
        self.provider = provider or FakeProvider()
        self.configs = configs or FakeConfigs(make_config())
        self.sessions = sessions or FakeSessions()
        self.scheduler = Scheduler(limits or TurnLimits())
        self.registry = CollectorRegistry()
        self.instances = Instances(TemplateCatalog([AssistantTemplate()]), Providers({"local": self.provider}))
        self.aborts = Aborts(self.sessions, abort_times or AbortTimes(retry_pause=0.01, resolve=0.5))
        self.runner = TurnRunner(
            configs=self.configs,
            instances=self.instances,
            scheduler=self.scheduler,
            sessions=self.sessions,
            aborts=self.aborts,
            lease_times=times or LeaseTimes(),
            metrics=TurnMetrics(self.registry),
            turn_timeout=turn_timeout,
        )

    def count(self, outcome: str) -> float:
        return self.registry.get_sample_value("parley_turns_total", {"outcome": outcome}) or 0.0
