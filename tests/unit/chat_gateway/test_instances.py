"""The instance cache: one agent for each revision, bounded, and never in the way of a turn."""

import pytest

from chat_gateway.instances import Instances
from chat_gateway.model.errors import ProviderUnknown, TemplateNotBuildable
from chat_gateway.providers.provider import Providers
from chat_gateway.templates.assistant import AssistantTemplate1
from chat_gateway.templates.catalog import TemplateCatalog
from tests.unit.chat_gateway.world import FakeProvider, make_config


def make_instances(limit: int = 10) -> Instances:
    return Instances(TemplateCatalog([AssistantTemplate1()]), Providers({"local": FakeProvider()}), limit=limit)


def test_an_agent_is_built_once_for_each_revision() -> None:
    instances = make_instances()
    first = instances.get(make_config(revision=1))
    assert instances.get(make_config(revision=1)) is first
    assert instances.get(make_config(revision=2)) is not first
    assert instances.get(make_config(uid="uid-2")) is not first
    assert (instances.built_count, instances.hit_count) == (3, 1)


def test_the_least_recently_used_goes_first() -> None:
    instances = make_instances(limit=2)
    for revision in (1, 2, 1, 3):
        instances.get(make_config(revision=revision))
    assert [info.agent_revision for info in instances.list("default")] == [3, 1]


def test_eviction_keeps_to_its_project_and_agent() -> None:
    instances = make_instances()
    for project, agent, uid in (("default", "a", "1"), ("default", "b", "2"), ("other", "a", "3")):
        instances.get(make_config(project=project, id=agent, uid=uid))
    assert instances.evict("default", "a") == 1
    assert [info.agent_uid for info in instances.list("default")] == ["2"]
    instances.evict_uid("2")
    assert instances.list("default") == []
    assert instances.evict("other") == 1
    assert len(instances) == 0


def test_a_template_that_is_not_here_is_named() -> None:
    with pytest.raises(TemplateNotBuildable) as caught:
        make_instances().get(make_config(template_id="oracle"))
    assert caught.value.metadata == {"template_id": "oracle", "template_version": "1.0.0"}


def test_a_provider_that_is_not_here_is_named() -> None:
    with pytest.raises(ProviderUnknown):
        make_instances().get(make_config(provider="elsewhere"))
    assert len(make_instances()) == 0
