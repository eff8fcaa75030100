"""The agent instances of this process: a bounded cache that can be emptied at any time."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from cachetools import LRUCache

from chat_gateway.agents.agent import Agent
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.providers.fallbacks import provider_of
from chat_gateway.providers.observed import ModelMetrics
from chat_gateway.providers.provider import Providers
from chat_gateway.templates.catalog import TemplateCatalog


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """The description of an instance."""

    project: str
    agent_id: str
    agent_uid: str
    agent_revision: int
    template_id: str
    build_time: datetime
    last_used_time: datetime
    turn_count: int


@dataclass(slots=True)
class _Instance:
    agent: Agent
    config: AgentConfig
    built: float
    used: float
    turns: int = 0


class Instances:
    """Builds agents when a turn needs them and keeps the most recently used ones.

    Keyed by uid and revision, so an instance only serves its own revision. Evicting never disturbs a running turn,
    which keeps its agent.
    """

    def __init__(
        self,
        templates: TemplateCatalog,
        providers: Providers,
        *,
        limit: int = 10_000,
        metrics: ModelMetrics | None = None,
    ) -> None:
        self._templates = templates
        self._metrics = metrics
        self._providers = providers
        self._kept: LRUCache[tuple[str, int], _Instance] = LRUCache(limit)
        self.built_count = 0
        self.built_seconds = 0.0
        self.hit_count = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, config: AgentConfig) -> Agent:
        """Returns the agent of this revision. Raises `TemplateNotBuildable` or `ProviderUnknown`."""
        key = (config.uid, config.revision)
        instance = self._kept.get(key)
        if instance is None:
            instance = self._build(config)
            self._kept[key] = instance
        else:
            self.hit_count += 1
        instance.used = time.time()
        instance.turns += 1
        return instance.agent

    def list(self, project: str, agent_id: str = "") -> list[InstanceInfo]:
        """Returns the instances of a project, or of one of its agents, the most recently used first."""
        found = [i for i in self._kept.values() if _fits(i, project, agent_id)]
        return [_info(i) for i in sorted(found, key=lambda instance: instance.used, reverse=True)]

    def evict(self, project: str, agent_id: str = "") -> int:
        """Drops the instances of a project, or of one of its agents, and returns their number."""
        gone = [key for key, instance in self._kept.items() if _fits(instance, project, agent_id)]
        for key in gone:
            del self._kept[key]
        return len(gone)

    def evict_uid(self, uid: str) -> None:
        """Drops the instances of the agent with this uid."""
        for key in [key for key in self._kept if key[0] == uid]:
            del self._kept[key]

    def _build(self, config: AgentConfig) -> _Instance:
        provider = provider_of(config, self._providers, self._metrics)
        start = time.perf_counter()
        agent = self._templates.build(config, provider)
        self.built_seconds += time.perf_counter() - start
        self.built_count += 1
        now = time.time()
        return _Instance(agent, config, now, now)


def _fits(instance: _Instance, project: str, agent_id: str) -> bool:
    config = instance.config
    return config.project == project and (not agent_id or config.id == agent_id)


def _info(instance: _Instance) -> InstanceInfo:
    config = instance.config
    return InstanceInfo(
        project=config.project,
        agent_id=config.id,
        agent_uid=config.uid,
        agent_revision=config.revision,
        template_id=config.template_id,
        build_time=datetime.fromtimestamp(instance.built, UTC),
        last_used_time=datetime.fromtimestamp(instance.used, UTC),
        turn_count=instance.turns,
    )
