"""The same tests against the in-memory twin and the PostgreSQL store."""

import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from config_svc.agents import AgentConfigs
from config_svc.memory_store import MemoryStore
from config_svc.metrics import Metrics
from config_svc.model.agent import AgentSpec, ModelConfig
from config_svc.model.project import Project
from config_svc.model.template import Template
from config_svc.postgres_store import PostgresStore
from config_svc.projects import Projects
from config_svc.store import Store
from config_svc.sweep import Sweep
from tests.service.config_svc.databases import migrated_database

RETENTION = timedelta(days=30)


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "memory":
        yield None
        return
    with migrated_database(request.getfixturevalue("postgres_server")) as url:
        yield url


@pytest.fixture
async def store(database: str | None, clock: Clock) -> AsyncIterator[Store]:
    """An empty store that knows the template `assistant`, whose only rule is that `company` is a string."""
    schema: dict[str, Any] = {"type": "object", "properties": {"company": {"type": "string"}}}
    template = Template("assistant", "1.0.0", "", schema, clock())
    if database is None:
        memory = MemoryStore()
        await _furnish(memory, clock, template)
        yield memory
        return
    postgres = PostgresStore(database)
    await _furnish(postgres, clock, template)
    yield postgres
    await postgres.close()


async def _furnish(store: Store, clock: Clock, template: Template) -> None:
    """The template, and projects beside `default`."""
    for name in ("mine", "other"):
        project = Project(name, str(uuid.uuid4()), "", clock())
        await store.transact(lambda writing, made=project: writing.insert_project(made))
    await publish(store, template)


async def publish(store: Store, template: Template) -> Template:
    """Publishes a template version; returns what is stored of it then."""
    return (await store.transact(lambda writing: writing.publish(template)))[0]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def agents(store: Store, clock: Clock, metrics: Metrics) -> AgentConfigs:
    return AgentConfigs(store, clock=clock, retention=RETENTION, metrics=metrics)


@pytest.fixture
def projects(store: Store, clock: Clock, metrics: Metrics) -> Projects:
    return Projects(store, clock=clock, metrics=metrics)


@pytest.fixture
def sweep(store: Store, clock: Clock, metrics: Metrics, projects: Projects) -> Sweep:
    return Sweep(store, clock, metrics, feed_retention=timedelta(days=7), keep_changes=1000, projects=projects)


def spec(**fields: Any) -> AgentSpec:
    """The least that an agent config needs, and what is given."""
    return AgentSpec(**{"model": ModelConfig(provider="local", name="small"), **fields})
