"""The previous release's config_svc on the schema of this one, as in a rolling upgrade after its migration."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from parley.config.v1 import access_service_pb2 as access_pb
from parley.config.v1 import agent_config_service_pb2 as pb
from servicekit.channels import open_channel
from tests.servers.previous_release import sources_of_the_previous_release
from tests.servers.processes import ServiceProcess
from tests.servers.stores import libpq_url
from tests.service.config_svc.conftest import Running, agent, publish, running


@pytest.fixture
async def previous(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """The previous release, serving."""
    sources = sources_of_the_previous_release(tmp_path / "previous")
    settings = {"PARLEY_CONFIG_DATABASE_URL": database_url}
    process = ServiceProcess("config_svc", settings, logs=tmp_path, sources=sources)
    await asyncio.to_thread(process.start)
    try:
        async with open_channel(process.grpc_target) as channel:
            yield Running(0, channel)
    finally:
        await asyncio.to_thread(process.stop)


async def create(service: Running, agent_id: str, **fields: Any) -> Any:
    request = pb.CreateAgentConfigRequest(agent_config=agent(agent_id), **fields)
    return (await service.agents.CreateAgentConfig(request)).agent_config


async def sent(watch: Any, count: int) -> list[tuple[str, int]]:
    seen = [await asyncio.wait_for(watch.read(), 60) for _ in range(count)]
    return [(one.agent_config.id, one.change_type) for one in seen]


async def test_both_releases_write_and_see_what_the_other_wrote(previous: Running, database_url: str) -> None:
    async with running(database_url) as new:
        for service in (previous, new):
            await service.templates.PublishTemplate(publish())
        watches = [service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest()) for service in (previous, new)]
        for watch in watches:
            await asyncio.wait_for(watch.read(), 60)
        pairs = [(previous, new, "old"), (new, previous, "new")]
        for writer, reader, name in pairs:
            made = await create(writer, name)
            assert (await reader.agents.GetAgentConfig(pb.GetAgentConfigRequest(id=name))).agent_config == made
            change = pb.UpdateAgentConfigRequest(agent_config=agent(name, display_name="x", etag=made.etag))
            changed = (await reader.agents.UpdateAgentConfig(change)).agent_config
            assert changed.revision == 2
            back = pb.RollbackAgentConfigRequest(id=name, revision=1, etag=changed.etag)
            assert (await writer.agents.RollbackAgentConfig(back)).agent_config.revision == 3
            await reader.agents.DeleteAgentConfig(pb.DeleteAgentConfigRequest(id=name))
            await writer.agents.UndeleteAgentConfig(pb.UndeleteAgentConfigRequest(uid=made.uid))
            listed = await reader.agents.ListAgentConfigs(pb.ListAgentConfigsRequest())
            assert name in [one.id for one in listed.agent_configs]
        expected = [(name, change) for name in ("old", "new") for change in (1, 2, 2, 3, 1)]
        for watch in watches:
            assert await sent(watch, 10) == expected
            watch.cancel()
        log = await new.access.ListAuditEvents(access_pb.ListAuditEventsRequest(resource="agent_configs/new"))
        assert [event.action for event in log.audit_events] == [
            f"agent_configs.{verb}" for verb in ("undelete", "rollback", "create")
        ], "the previous release keeps no log"


async def test_what_the_previous_release_makes_has_a_project(previous: Running, database_url: str) -> None:
    """It knows none, and makes agents in whatever project it is given: each begins with its first agent."""
    async with running(database_url) as new:
        await previous.templates.PublishTemplate(publish())
        await create(previous, "a", project="made-by-the-old")
        await create(new, "b", project="made-by-the-old")
        await asyncio.gather(*(create(previous, f"c{number}", project="at-once") for number in range(6)))
        listed = await new.access.ListProjects(access_pb.ListProjectsRequest())
        assert [one.id for one in listed.projects] == ["at-once", "default", "made-by-the-old"]
        await new.access.DeleteProject(access_pb.DeleteProjectRequest(id="made-by-the-old"))
        for service in (previous, new):
            request = pb.ListAgentConfigsRequest(project="made-by-the-old", show_deleted=True)
            assert not (await service.agents.ListAgentConfigs(request)).agent_configs


async def test_what_the_previous_release_makes_during_a_deletion_is_deleted_too(
    previous: Running, database_url: str
) -> None:
    async with running(database_url) as new:
        await previous.templates.PublishTemplate(publish())
        for number in range(20):
            await create(previous, f"a{number}", project="going")

        async def make(number: int) -> None:
            await create(previous, f"b{number}", project="going")

        makers = [asyncio.create_task(make(number)) for number in range(30)]
        await new.access.DeleteProject(access_pb.DeleteProjectRequest(id="going"))
        await asyncio.gather(*makers)
        async with await psycopg.AsyncConnection.connect(libpq_url(database_url)) as admin:
            orphans = await admin.execute(
                "SELECT count(*) FROM agent_configs a WHERE NOT EXISTS (SELECT FROM projects p WHERE p.id = a.project)"
            )
            assert await orphans.fetchone() == (0,), "whatever is left stands in a project that was made for it"
