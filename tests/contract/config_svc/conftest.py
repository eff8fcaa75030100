"""The same tests against the in-memory twin and the PostgreSQL store."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from access.caller import KEY_SCOPES, Caller, current, set_current
from access.errors import Unauthenticated
from config_svc.access.api_keys import ApiKeys
from config_svc.access.key_hashes import KeyHashes
from config_svc.access.key_uses import KeyUses
from config_svc.access.projects import Projects
from config_svc.agents.configs import AgentConfigs
from config_svc.audit.log import AuditLog
from config_svc.metrics import Metrics
from config_svc.model.agent import AgentSpec, ModelConfig
from config_svc.model.api_key import ApiKey
from config_svc.model.project import Project
from config_svc.model.template import Template
from config_svc.ports.store import Store, Transaction
from config_svc.postgres.store import PostgresStore
from config_svc.sweep import Sweep
from servicekit.errors import ServiceError
from tests.doubles.config_svc.memory_store import MemoryStore
from tests.servers.databases import migrated_database

RETENTION = timedelta(days=30)


class Clock:
    """A clock that stands still until a test moves it."""

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


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.servers)])
def database(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "memory":
        yield None
        return
    with migrated_database(request.getfixturevalue("postgres_server")) as url:
        yield url


@pytest.fixture
async def store(database: str | None, clock: Clock, patient_with_stores: None) -> AsyncIterator[Store]:
    """An empty store that knows the template `assistant`, whose only rule is that `company` is a string."""
    schema: dict[str, Any] = {"type": "object", "properties": {"company": {"type": "string"}}}
    template = Template("assistant", "1.0.0", "", schema, clock())
    if database is None:
        memory = MemoryStore()
        await _furnish(memory, clock, template)
        yield memory
        return
    postgres = PostgresStore(database, answer_seconds=30)
    await _furnish(postgres, clock, template)
    yield postgres
    await postgres.close()


async def _furnish(store: Store, clock: Clock, template: Template) -> None:
    """The template, and projects beside `default`."""
    for name in ("mine", "other"):
        await store.transact(partial(_insert, Project(name, str(uuid.uuid4()), "", clock())))
    await publish(store, template)


async def _insert(project: Project, transaction: Transaction) -> None:
    await transaction.insert_project(project)


async def publish(store: Store, template: Template) -> Template:
    """Publishes a template version; returns what is stored of it then."""
    return (await store.transact(lambda transaction: transaction.publish(template)))[0]


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


@pytest.fixture
def hashes() -> KeyHashes:
    return KeyHashes([b"a secret of the tests, 32 bytes.."])


@pytest.fixture
def uses(store: Store, clock: Clock) -> KeyUses:
    return KeyUses(store, clock=clock)


@pytest.fixture
def keys(store: Store, clock: Clock, hashes: KeyHashes, uses: KeyUses, metrics: Metrics) -> ApiKeys:
    return ApiKeys(store, clock=clock, hashes=hashes, uses=uses, metrics=metrics)


@pytest.fixture
def audit(store: Store, clock: Clock) -> AuditLog:
    return AuditLog(store, clock=clock)


@contextmanager
def calling(**fields: Any) -> Iterator[Caller]:
    """Makes somebody else the caller within the block: an API key of `mine`, unless `fields` say otherwise."""
    given = {"id": "key_caller", "project": "mine", "scopes": KEY_SCOPES, **fields}
    caller = Caller(**given)
    before = current()
    set_current(caller)
    try:
        yield caller
    finally:
        set_current(before)


def wanted_key(*scopes: str, **fields: Any) -> ApiKey:
    """A key that is to be made."""
    given = {"id": "", "project": "mine", "project_uid": "", "create_time": datetime.now(UTC), **fields}
    return ApiKey(scopes=scopes or ("chat",), **given)


def spec(**fields: Any) -> AgentSpec:
    """The least that an agent config needs, and what is given."""
    return AgentSpec(**{"model": ModelConfig(provider="local", name="small"), **fields})


async def refusal(keys: ApiKeys, text: str) -> ServiceError:
    """Returns what a key that is not good is answered."""
    with pytest.raises(Unauthenticated) as caught:
        await keys.check(text)
    return caught.value
