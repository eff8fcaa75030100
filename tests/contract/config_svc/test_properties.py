"""What holds for any filter, any page size, any writes in between and any race: on both stores."""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from config_svc.agents.configs import AgentConfigs
from config_svc.metrics import Metrics
from config_svc.model.agent import AgentConfig, ModelConfig
from config_svc.model.errors import AgentAlreadyExists, AgentNotFound, EtagMismatch
from config_svc.model.filter import matches, parse_filter
from config_svc.model.project import Project
from config_svc.model.template import Template
from config_svc.ports.store import Store
from config_svc.postgres.store import PostgresStore
from servicekit.errors import Violations
from tests.contract.config_svc.conftest import Clock, publish, spec
from tests.doubles.config_svc.memory_store import MemoryStore

T = TypeVar("T")

CHECKED = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@dataclass
class Bench:
    """The use cases on one store, run on a loop of their own; every example takes a project of its own."""

    runner: asyncio.Runner
    store: Store
    agents: AgentConfigs
    clock: Clock
    numbers: Iterator[int]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def project(self) -> str:
        made = Project(f"p{next(self.numbers)}", str(uuid.uuid4()), "", self.clock())
        self.run(self.store.transact(lambda transaction: transaction.insert_project(made)))
        return made.id


@pytest.fixture
def bench(database: str | None) -> Iterator[Bench]:
    clock = Clock()

    async def start() -> tuple[MemoryStore | PostgresStore, AgentConfigs]:
        store = MemoryStore() if database is None else PostgresStore(database)
        await publish(store, Template("assistant", "1.0.0", "", {"type": "object"}, clock()))
        metrics = Metrics(CollectorRegistry())
        return store, AgentConfigs(store, clock=clock, retention=timedelta(days=1), metrics=metrics)

    with asyncio.Runner() as runner:
        store, agents = runner.run(start())
        yield Bench(runner, store, agents, clock, itertools.count())
        if isinstance(store, PostgresStore):
            runner.run(store.close())


async def pages(
    agents: AgentConfigs, project: str, size: int, order_by: str = "", filter_text: str = ""
) -> list[AgentConfig]:
    found: list[AgentConfig] = []
    token = ""
    while True:
        page, token = await agents.list(
            project, size=size, token=token, filter_text=filter_text, order_by=order_by, show_deleted=False
        )
        found += page
        if not token:
            return found


words = st.sampled_from(["a", "b", "A", "é", "a b", "", '"', "\\", "10", "9", "%", "a_"])
signs = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
text_fields = st.sampled_from(["provider", "model", "template_id", "labels.x", "labels.y.z"])
times = st.sampled_from([f"2026-01-01T12:00:0{second}.123456Z" for second in range(6)])


def quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


restrictions = st.one_of(
    st.builds(lambda field, sign, word: f"{field}{sign}{quoted(word)}", text_fields, signs, words),
    st.builds(lambda field, sign, time: f"{field}{sign}{time}", st.sampled_from(["create_time"]), signs, times),
    st.sampled_from(["labels.x:*", "labels.y.z:*"]),
)
filters = st.recursive(
    restrictions,
    lambda inner: st.one_of(
        st.builds("NOT ({})".format, inner),
        st.builds("({}) AND ({})".format, inner, inner),
        st.builds("({}) OR ({})".format, inner, inner),
    ),
    max_leaves=6,
)
labels = st.dictionaries(st.sampled_from(["x", "y.z"]), words)
contents = st.lists(st.tuples(words.filter(bool), words.filter(bool), labels), min_size=1, max_size=8)


@CHECKED
@given(contents=contents, text=filters, size=st.integers(1, 4))
def test_a_filter_means_the_same_to_the_database(
    bench: Bench, contents: list[tuple[str, str, dict[str, str]]], text: str, size: int
) -> None:
    async def check(project: str) -> None:
        start = bench.clock.now
        stored = []
        for number, (provider, model, given_) in enumerate(contents):
            content = spec(model=ModelConfig(provider, model), labels=given_)
            stored.append(await bench.agents.create(project, f"a{number}", content))
            bench.clock.advance(seconds=1)
        bench.clock.now = start
        found = Violations()
        wanted = parse_filter(found, text)
        found.check()
        assert wanted is not None
        expected = [one for one in stored if matches(one, wanted)]
        assert await pages(bench.agents, project, size, "id", text) == expected

    bench.run(check(bench.project()))


ids = st.integers(0, 11).map(lambda number: f"a{number:02}")
writes = st.lists(st.tuples(st.sampled_from(["create", "update", "delete"]), ids), max_size=4)


@CHECKED
@given(
    there=st.sets(ids),
    size=st.integers(1, 5),
    between=st.lists(writes, max_size=6),
    order=st.sampled_from(["id", "create_time", "update_time"]),
    descending=st.booleans(),
)
def test_pages_have_once_whatever_nobody_touches(
    bench: Bench, there: set[str], size: int, between: list[list[tuple[str, str]]], order: str, descending: bool
) -> None:
    order_by = f"{order} desc" if descending else order

    async def write(project: str, kind: str, agent_id: str) -> None:
        bench.clock.advance(milliseconds=1)
        with contextlib.suppress(AgentAlreadyExists, AgentNotFound):
            if kind == "create":
                await bench.agents.create(project, agent_id, spec())
            elif kind == "update":
                name = bench.clock.now.isoformat()
                await bench.agents.update(project, agent_id, spec(display_name=name), ["display_name"])
            else:
                await bench.agents.delete(project, agent_id)

    async def check(project: str) -> None:
        for agent_id in sorted(there, reverse=True):
            await write(project, "create", agent_id)
        before = [one.id for one in await pages(bench.agents, project, 100, order_by)]
        shown: list[str] = []
        token, rounds = "", iter(between)
        while True:
            page, token = await bench.agents.list(
                project, size=size, token=token, filter_text="", order_by=order_by, show_deleted=False
            )
            shown += [one.id for one in page]
            if not token:
                break
            for kind, agent_id in next(rounds, ()):
                await write(project, kind, agent_id)
        touched = {agent_id for round_ in between for _, agent_id in round_}
        untouched = [one for one in before if one not in touched]
        assert [one for one in shown if one not in touched] == untouched
        if order == "id":
            assert len(set(shown)) == len(shown)
            assert shown == sorted(shown, reverse=descending)

    bench.run(check(bench.project()))


kinds = st.lists(st.sampled_from(["update", "patch-nothing", "rollback", "delete"]), min_size=2, max_size=6)


@CHECKED
@given(rounds=st.lists(kinds, min_size=1, max_size=3))
def test_of_any_race_with_one_etag_one_at_most_wins(bench: Bench, rounds: list[list[str]]) -> None:
    async def race(project: str, kind: str, number: int, etag: str) -> AgentConfig | None:
        agents = bench.agents
        write: dict[str, Callable[[], Coroutine[Any, Any, AgentConfig | None]]] = {
            "update": lambda: agents.update(
                project, "a", spec(display_name=f"{etag}{number}"), ["display_name"], etag=etag
            ),
            "patch-nothing": lambda: agents.update(project, "a", spec(), [], etag=etag),
            "rollback": lambda: agents.rollback(project, "a", 1, etag=etag),
            "delete": lambda: agents.delete(project, "a", etag=etag),
        }
        return await write[kind]()

    async def check(project: str) -> None:
        await bench.agents.create(project, "a", spec(display_name="first"))
        current = await bench.agents.update(project, "a", spec(display_name="second"), ["display_name"])
        for round_ in rounds:
            outcomes = await asyncio.gather(
                *(race(project, kind, number, current.etag) for number, kind in enumerate(round_)),
                return_exceptions=True,
            )
            for outcome in outcomes:
                assert isinstance(outcome, AgentConfig | EtagMismatch | AgentNotFound), outcome
            changed = [one for one in outcomes if isinstance(one, AgentConfig) and one.etag != current.etag]
            assert len(changed) <= 1
            if any(
                kind == "delete" and not isinstance(one, Exception) for kind, one in zip(round_, outcomes, strict=True)
            ):
                return
            current_now = await bench.agents.get(project, "a")
            assert current_now == (changed[0] if changed else current)
            assert current_now.revision == current.revision + len(changed)
            current = current_now

    bench.run(check(bench.project()))
