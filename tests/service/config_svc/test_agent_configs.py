"""AgentConfigService over gRPC and a real PostgreSQL."""

from parley.config.v1 import agent_config_service_pb2 as pb
from tests.service.config_svc.conftest import Running, agent


async def test_an_agent_config_lives_from_create_to_delete(service: Running) -> None:
    created = (await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=agent()))).agent_config
    assert (created.project, created.id, created.revision) == ("default", "support", 1)
    assert (created.template_id, created.template_version) == ("assistant", "1.0.0")

    got = await service.agents.GetAgentConfig(pb.GetAgentConfigRequest(id="support"))
    assert got.agent_config == created

    change = agent(display_name="Support")
    updated = (await service.agents.UpdateAgentConfig(pb.UpdateAgentConfigRequest(agent_config=change))).agent_config
    assert (updated.display_name, updated.revision, updated.uid) == ("Support", 2, created.uid)
    assert updated.etag != created.etag

    listed = await service.agents.ListAgentConfigs(pb.ListAgentConfigsRequest())
    assert list(listed.agent_configs) == [updated]

    deleted = (await service.agents.DeleteAgentConfig(pb.DeleteAgentConfigRequest(id="support"))).agent_config
    assert deleted.HasField("delete_time")
    assert not (await service.agents.ListAgentConfigs(pb.ListAgentConfigsRequest())).agent_configs


async def test_watch_sends_each_change_in_order(service: Running) -> None:
    watch = service.agents.WatchAgentConfigs(pb.WatchAgentConfigsRequest())
    first = await watch.read()
    assert first.cursor
    assert first.change_type == pb.CHANGE_TYPE_UNSPECIFIED
    await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=agent()))
    await service.agents.UpdateAgentConfig(pb.UpdateAgentConfigRequest(agent_config=agent(display_name="S")))
    await service.agents.DeleteAgentConfig(pb.DeleteAgentConfigRequest(id="support"))
    changes = [await watch.read() for _ in range(3)]
    assert [change.change_type for change in changes] == [1, 2, 3]
    assert changes[2].agent_config.HasField("delete_time")
    watch.cancel()
