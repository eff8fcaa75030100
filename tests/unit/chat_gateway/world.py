"""A small world for the turn runner: configs and sessions in memory, a provider that does what a test says."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from chat_gateway.aborts import Aborts, AbortTimes
from chat_gateway.instances import Instances
from chat_gateway.leases import LeaseTimes
from chat_gateway.metrics import TurnMetrics
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.not_found import AgentNotFound
from chat_gateway.model.turn import Delta, FinishReason, Message, OnDelta, Sampling, TurnRequest, Usage
from chat_gateway.providers.provider import ModelAnswer, ModelCall, Provider, Providers
from chat_gateway.scheduler import Scheduler, TurnLimits
from chat_gateway.templates.assistant import AssistantTemplate, AssistantTemplate1
from chat_gateway.templates.catalog import TemplateCatalog
from chat_gateway.templates.router import RouterTemplate
from chat_gateway.tools.metrics import ToolMetrics
from chat_gateway.turn import TurnRunner
from contract.enums import Role
from servicekit.errors import Code
from tests.doubles.chat_gateway.sessions import FakeSessions, remote
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes


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
        provider: Provider | None = None,
        configs: FakeConfigs | None = None,
        limits: TurnLimits | None = None,
        times: LeaseTimes | None = None,
        abort_times: AbortTimes | None = None,
        turn_timeout: float = 60,
        sessions: FakeSessions | None = None,
        toolboxes: FakeToolboxes | None = None,
        templates: Sequence[Any] = (),
    ) -> None:
        self.provider: Any = provider or FakeProvider()
        self.toolboxes = toolboxes or FakeToolboxes()
        self.configs = configs or FakeConfigs(make_config())
        self.sessions = sessions or FakeSessions()
        self.scheduler = Scheduler(limits or TurnLimits())
        self.registry = CollectorRegistry()
        catalog = TemplateCatalog([AssistantTemplate(), AssistantTemplate1(), RouterTemplate(), *templates])
        self.instances = Instances(catalog, Providers({"local": self.provider}))
        self.aborts = Aborts(self.sessions, abort_times or AbortTimes(retry_pause=0.01, resolve=60))
        self.runner = TurnRunner(
            configs=self.configs,
            instances=self.instances,
            scheduler=self.scheduler,
            sessions=self.sessions,
            aborts=self.aborts,
            lease_times=times or LeaseTimes(),
            metrics=TurnMetrics(self.registry),
            turn_timeout=turn_timeout,
            toolboxes=self.toolboxes,
            call_metrics=ToolMetrics(lambda: 0.0, self.registry),
        )

    def called(self, kind: str, server: str, outcome: str) -> float:
        """Returns how many calls of tools were counted so."""
        labels = {"kind": kind, "tool_server": server, "outcome": outcome}
        return self.registry.get_sample_value("gen_ai_execute_tool_duration_seconds_count", labels) or 0.0

    def count(self, outcome: str) -> float:
        return self.registry.get_sample_value("parley_turns_total", {"outcome": outcome}) or 0.0
