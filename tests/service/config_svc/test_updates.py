"""Update masks over gRPC (AIP-134, AIP-161)."""

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from parley.config.v1 import agent_config_pb2 as agents_pb
from parley.config.v1 import agent_config_service_pb2 as pb
from tests.service.config_svc.conftest import Running, agent


async def update(service: Running, config: agents_pb.AgentConfig, *paths: str) -> agents_pb.AgentConfig:
    request = pb.UpdateAgentConfigRequest(agent_config=config, update_mask=FieldMask(paths=paths))
    answer: agents_pb.AgentConfig = (await service.agents.UpdateAgentConfig(request)).agent_config
    return answer


async def create(service: Running, **fields: Any) -> agents_pb.AgentConfig:
    config = agent("a", **fields)
    config.parameters.update({"company": "Acme", "tone": "dry"})
    answer: agents_pb.AgentConfig = (
        await service.agents.CreateAgentConfig(pb.CreateAgentConfigRequest(agent_config=config))
    ).agent_config
    return answer


FULL_MODEL = agents_pb.ModelConfig(provider="p", name="m", temperature=0.5, seed=2**62 + 1)


async def test_without_a_mask_only_what_is_set_changes(service: Running) -> None:
    before = await create(service, display_name="A", model=FULL_MODEL, labels={"a": "1"})
    after = await update(service, agents_pb.AgentConfig(id="a", model=agents_pb.ModelConfig(temperature=0)))
    assert after.model.temperature == 0
    assert after.model.HasField("temperature")
    assert (after.model.provider, after.model.seed) == ("p", 2**62 + 1)
    assert (after.display_name, dict(after.labels), after.parameters) == ("A", {"a": "1"}, before.parameters)
    labelled = await update(service, agents_pb.AgentConfig(id="a", labels={"b": "2"}))
    assert dict(labelled.labels) == {"b": "2"}


async def test_a_path_that_is_named_and_not_set_is_cleared(service: Running) -> None:
    await create(service, display_name="A", instructions="I", model=FULL_MODEL, labels={"a": "1", "b": "2"})
    given = agents_pb.AgentConfig(id="a", labels={"c": "3"})
    after = await update(service, given, "display_name", "model.temperature", "labels.a", "labels.c", "parameters.tone")
    assert after.display_name == ""
    assert after.instructions == "I"
    assert not after.model.HasField("temperature")
    assert after.model.seed == 2**62 + 1
    assert dict(after.labels) == {"b": "2", "c": "3"}
    assert dict(after.parameters) == {"company": "Acme"}


async def test_a_message_that_is_named_is_replaced(service: Running) -> None:
    await create(service, model=FULL_MODEL)
    given = agents_pb.AgentConfig(id="a", model=agents_pb.ModelConfig(provider="p", name="n"))
    assert (await update(service, given, "model")).model == given.model


async def test_a_star_replaces_all_that_can_be_written(service: Running) -> None:
    before = await create(service, display_name="A", model=FULL_MODEL, labels={"a": "1"})
    after = await update(service, agent("a", display_name="B"), "*")
    assert (after.uid, after.create_time, after.revision) == (before.uid, before.create_time, 2)
    assert after.display_name == "B"
    assert not after.labels
    assert not after.HasField("parameters")
    assert after.model == agents_pb.ModelConfig(provider="local", name="small")


async def test_output_only_fields_are_ignored(service: Running) -> None:
    before = await create(service)
    given = agents_pb.AgentConfig()
    given.CopyFrom(before)
    given.uid, given.revision, given.project = "x", 9, "other"
    given.ClearField("create_time")
    assert await update(service, given) == before
    assert await update(service, given, "uid", "revision", "create_time", "project", "id") == before


async def test_what_was_read_can_be_written_back(service: Running) -> None:
    before = await create(service, display_name="A", model=FULL_MODEL, labels={"a": "1"})
    assert await update(service, before) == before
    assert await update(service, before, "*") == before
    before.display_name = "B"
    assert (await update(service, before)).revision == 2


async def test_revisions_say_what_changed(service: Running) -> None:
    await create(service, model=FULL_MODEL)
    await update(service, agents_pb.AgentConfig(id="a", model=agents_pb.ModelConfig(seed=1), labels={"x": "y"}))
    listed = await service.agents.ListAgentConfigRevisions(pb.ListAgentConfigRevisionsRequest(id="a"))
    assert [list(one.changed_fields) for one in listed.revisions] == [["model.seed", "labels"], []]
    assert [one.agent_config.revision for one in listed.revisions] == [2, 1]
    back = await service.agents.RollbackAgentConfig(pb.RollbackAgentConfigRequest(id="a", revision=1, comment="back"))
    assert back.agent_config.model == FULL_MODEL
    assert back.agent_config.revision == 3
