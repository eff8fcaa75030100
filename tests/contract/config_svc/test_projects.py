"""Projects: on both stores. What is in one is seen by nobody else, and an id that is made again begins empty."""

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from access.errors import Unauthenticated
from config_svc.access.api_keys import ApiKeys
from config_svc.access.projects import Projects
from config_svc.agents.change_feed import ChangeFeed
from config_svc.agents.configs import AgentConfigs
from config_svc.audit.log import AuditLog
from config_svc.metrics import Metrics
from config_svc.model.audit import AuditQuery
from config_svc.model.change import ChangeType
from config_svc.model.errors import (
    AgentNotFound,
    ProjectAlreadyExists,
    ProjectInUse,
    ProjectNotFound,
)
from config_svc.ports.store import Store, Transaction
from config_svc.sweep import Sweep
from servicekit.errors import InvalidArgument, Unavailable
from tests.contract.config_svc.conftest import Clock, calling, spec, wanted_key

P = "mine"


async def ids(projects: Projects, **asked: Any) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        page, token = await projects.list(size=asked.get("size", 0), token=token)
        found += [project.id for project in page]
        if not token:
            return found


async def agents_of(agents: AgentConfigs, project: str) -> list[str]:
    page, _ = await agents.list(project, size=0, token="", filter_text="", order_by="", show_deleted=True)
    return [agent.id for agent in page]


async def test_projects_are_made_once_and_listed_by_pages(projects: Projects) -> None:
    made = await projects.create("team-a", "Team A")
    assert made.display_name == "Team A"
    with pytest.raises(ProjectAlreadyExists):
        await projects.create("team-a", "")
    with pytest.raises(ProjectAlreadyExists):
        await projects.create("default", "")
    assert await ids(projects, size=2) == ["default", "mine", "other", "team-a"]
    for wrong in ("", "No", "a" * 64, "-a", "a\0"):
        with pytest.raises(InvalidArgument):
            await projects.create(wrong, "")


async def test_of_concurrent_creations_of_one_id_one_wins(projects: Projects) -> None:
    outcomes = await asyncio.gather(*(projects.create("new", "") for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(outcome, ProjectAlreadyExists) for outcome in outcomes) == 5


async def test_the_default_project_stays(projects: Projects) -> None:
    with pytest.raises(ProjectInUse):
        await projects.delete("default")
    for unknown in ("nowhere", "No", "a\0"):
        with pytest.raises(ProjectNotFound):
            await projects.delete(unknown)


async def test_agents_are_made_in_projects_that_are_there(agents: AgentConfigs) -> None:
    for validate_only in (False, True):
        with pytest.raises(ProjectNotFound):
            await agents.create("nowhere", "a", spec(), validate_only=validate_only)
    with pytest.raises(AgentNotFound):
        await agents.get("nowhere", "a")
    assert await agents_of(agents, "nowhere") == []


async def test_nothing_of_a_project_is_seen_in_another(agents: AgentConfigs) -> None:
    made = await agents.create(P, "a", spec())
    for call in (
        agents.get("other", "a"),
        agents.get("default", "a", uid=made.uid),
        agents.update("other", "a", spec(display_name="x"), ["display_name"]),
        agents.delete("other", "a"),
        agents.rollback("other", "a", 1),
        agents.revisions("other", "a", size=0, token=""),
        agents.compare("other", "a"),
        agents.undelete("other", made.uid),
    ):
        with pytest.raises(AgentNotFound):
            await call
    assert await agents_of(agents, "other") == []
    assert await agents.delete("other", "a", allow_missing=True) is None
    assert await agents.get(P, "a") == made


async def test_a_deletion_takes_everything_and_announces_it(
    agents: AgentConfigs, store: Store, clock: Clock, metrics: Metrics
) -> None:
    projects = Projects(store, clock=clock, metrics=metrics, agents_per_step=2)
    for number in range(5):
        await agents.create(P, f"a{number}", spec())
    gone = await agents.create(P, "gone", spec())
    await agents.delete(P, "gone")
    await agents.create("other", "a0", spec())
    before = (await store.feed_position()).last
    await projects.delete(P)
    changes = await store.changes(before, 100)
    assert [(one.type, one.agent_config.id) for one in changes] == [
        (ChangeType.DELETED, f"a{number}") for number in range(5)
    ]
    assert all(one.agent_config.delete_time is not None for one in changes)
    assert await ids(projects) == ["default", "other"]
    with pytest.raises(ProjectNotFound):
        await projects.delete(P)
    with pytest.raises(ProjectNotFound):
        await agents.create(P, "a", spec())
    with pytest.raises(AgentNotFound):
        await agents.undelete(P, gone.uid)
    assert await agents_of(agents, "other") == ["a0"]


async def test_an_id_that_is_made_again_begins_empty(
    agents: AgentConfigs, projects: Projects, store: Store, clock: Clock, metrics: Metrics, sweep: Sweep
) -> None:
    request_id = "0f9d7a3e-0000-4000-8000-000000000001"
    feed = ChangeFeed(store, clock=clock, metrics=metrics, peer="db", poll=0.2)
    following = asyncio.create_task(feed.follow())
    await feed.reached()
    async with aclosing(feed.watch(None, "", None)) as events:
        start = (await anext(events)).cursor
    live = await agents.create(P, "live", spec(), request_id=request_id)
    deleted = await agents.create(P, "deleted", spec())
    await agents.delete(P, "deleted")
    await projects.delete(P)
    clock.advance(seconds=1)
    await projects.create(P, "again")
    assert await agents_of(agents, P) == []
    for uid in (live.uid, deleted.uid):
        with pytest.raises(AgentNotFound):
            await agents.undelete(P, uid)
    with pytest.raises(AgentNotFound):
        await agents.undelete(P, deleted_id="deleted")
    again = await agents.create(P, "live", spec(), request_id=request_id)
    assert again.uid != live.uid, "the request id is not known either"
    await sweep.once()
    assert await agents_of(agents, P) == ["live"]
    async with aclosing(feed.watch(P, start, None)) as events, asyncio.timeout(60):
        assert (await anext(events)).change is None
        first = (await anext(events)).change
        assert first is not None
        assert first.agent_config.uid == again.uid, "changes of the earlier project are not those of this one"
    async with aclosing(feed.watch(None, start, None)) as events, asyncio.timeout(60):
        await anext(events)
        whole = [(await anext(events)).change for _ in range(5)]
        assert [one.agent_config.uid for one in whole if one] == [
            live.uid,
            deleted.uid,
            deleted.uid,
            live.uid,
            again.uid,
        ], "who follows all projects misses none of them"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_the_audit_log_of_an_earlier_project_is_for_operators(
    agents: AgentConfigs, projects: Projects, audit: AuditLog
) -> None:
    await agents.create(P, "a", spec())
    await projects.delete(P)
    await projects.create(P, "")
    page, _ = await audit.list(AuditQuery(P), size=0, token="")
    assert [event.action for event in page] == [
        "projects.create",
        "agent_configs.delete",
        "projects.delete",
        "agent_configs.create",
    ]
    with calling(scopes=frozenset({"audit:read"})):
        page, _ = await audit.list(AuditQuery(P), size=0, token="")
        assert [event.action for event in page] == ["projects.create"]
        assert await audit.list(AuditQuery("nowhere"), size=0, token="") == ([], "")


@pytest.mark.parametrize("steps", range(6))
async def test_a_deletion_that_is_cut_short_is_finished_by_the_next_sweep(
    agents: AgentConfigs,
    store: Store,
    clock: Clock,
    metrics: Metrics,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After each of its transactions: what was begun is closed to everybody, and goes on."""
    projects = Projects(store, clock=clock, metrics=metrics, agents_per_step=2)
    sweep = Sweep(store, clock, metrics, feed_retention=timedelta(days=7), keep_changes=1000, projects=projects)
    for number in range(3):
        await agents.create(P, f"a{number}", spec())
    await agents.delete(P, "a0")
    transact, done = store.transact, 0

    async def dying(work: Any) -> Any:
        nonlocal done
        if done == steps:
            raise Unavailable("db")
        done += 1
        return await transact(work)

    monkeypatch.setattr(store, "transact", dying)
    with pytest.raises(Unavailable):
        await projects.delete(P)
    monkeypatch.setattr(store, "transact", transact)
    if steps:
        with pytest.raises(ProjectNotFound):
            await agents.create(P, "new", spec())
        with pytest.raises(ProjectAlreadyExists):
            await projects.create(P, "")
        await sweep.once()
    else:
        await projects.delete(P)
    assert await ids(projects) == ["default", "other"]
    assert [one.agent_config.id for one in await store.changes(0, 100) if one.type is ChangeType.DELETED] == [
        "a0",
        "a1",
        "a2",
    ]
    await sweep.once()
    await projects.create(P, "")
    assert await agents_of(agents, P) == []


async def test_a_write_that_began_before_the_deletion_is_deleted_too(
    agents: AgentConfigs, projects: Projects, database: str | None, store: Store
) -> None:
    if database is None:
        pytest.skip("the in-memory twin has one writer at a time")
    began, go = asyncio.Event(), asyncio.Event()

    async def slow(transaction: Transaction) -> None:
        assert await transaction.hold_project(P) is not None
        began.set()
        await go.wait()

    holder = asyncio.create_task(store.transact(slow))
    await began.wait()
    deleting = asyncio.create_task(projects.delete(P))
    await asyncio.sleep(0.2)
    assert not deleting.done(), "it waits for who was first"
    go.set()
    await asyncio.gather(holder, deleting)
    assert await ids(projects) == ["default", "other"]


async def test_agents_made_during_a_deletion_never_outlive_it(agents: AgentConfigs, projects: Projects) -> None:
    async def make(number: int) -> str:
        try:
            return (await agents.create(P, f"a{number}", spec())).id
        except ProjectNotFound:
            return ""

    makers = [asyncio.create_task(make(number)) for number in range(12)]
    await asyncio.sleep(0.01)
    await projects.delete(P)
    await asyncio.gather(*makers)
    await projects.create(P, "")
    assert await agents_of(agents, P) == []


async def test_keys_end_with_their_project(projects: Projects, keys: ApiKeys) -> None:
    texts = [(await keys.create(wanted_key()))[1] for _ in range(5)]
    _, kept = await keys.create(wanted_key(project="other"))
    await projects.delete(P)
    await projects.create(P, "")
    for text in texts:
        with pytest.raises(Unauthenticated):
            await keys.check(text)
    assert await keys.list(P, size=0, token="") == ([], "")
    assert (await keys.check(kept)).project == "other"


async def test_a_key_of_a_project_in_deletion_is_none(
    projects: Projects, keys: ApiKeys, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the mark on, before its own row says so."""
    _, text = await keys.create(wanted_key())
    await keys.check(text)

    async def die(*_: object) -> None:
        raise Unavailable("db")

    monkeypatch.setattr(projects, "_finish", die)
    with pytest.raises(Unavailable):
        await projects.delete(P)
    with pytest.raises(Unauthenticated):
        await keys.check(text)
    with pytest.raises(ProjectNotFound):
        await keys.create(wanted_key())
