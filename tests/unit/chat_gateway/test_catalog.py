"""Which template builds a config, and which plug-ins a gateway takes."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from chat_gateway.agents.template import Placeholders
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.errors import TemplateNotBuildable
from chat_gateway.templates.assistant import AssistantTemplate
from chat_gateway.templates.catalog import TemplateCatalog
from chat_gateway.templates.plugins import all_templates
from servicekit.errors import StartupError
from tests.unit.chat_gateway.world import FakeProvider, make_config


class Shop:
    """A template that tells who built what."""

    id = "shop"
    description = ""
    placeholders: Placeholders | None = None

    def __init__(self, version: str = "1.0.0", schema: Mapping[str, Any] | None = None) -> None:
        self.version = version
        self.parameters_schema = schema or {"type": "object"}

    def build(self, config: AgentConfig, provider: Any) -> Any:
        return self.version, dict(config.parameters)


class Broken:
    """Lacks all that a template has."""

    def build(self) -> None: ...


NOTHING: Any = None


def built(catalog: TemplateCatalog, version: str, **parameters: Any) -> Any:
    config = replace(make_config(template_id="shop"), template_version=version, parameters=parameters)
    return catalog.build(config, FakeProvider())


def test_a_config_is_built_by_the_newest_version_of_its_major() -> None:
    catalog = TemplateCatalog([Shop("1.2.0"), Shop("1.10.0"), Shop("2.0.0")])
    assert built(catalog, "1.0.0") == ("1.10.0", {})
    assert built(catalog, "1.99.0") == ("1.10.0", {}), "a newer gateway wrote it: this one does its best"
    assert built(catalog, "2.1.0") == ("2.0.0", {})
    assert built(catalog, "") == ("2.0.0", {})
    with pytest.raises(TemplateNotBuildable) as caught:
        built(catalog, "3.0.0")
    assert caught.value.metadata == {"template_id": "shop", "template_version": "3.0.0"}
    assert len(list(catalog)) == 3


def test_defaults_stand_in_for_what_is_left_out() -> None:
    properties = {"tone": {"default": "kind"}, "size": {"type": "integer"}, "odd": True}
    catalog = TemplateCatalog([Shop(schema={"type": "object", "properties": properties})])
    assert built(catalog, "1.0.0") == ("1.0.0", {"tone": "kind"})
    assert built(catalog, "1.0.0", tone="stern", size=1) == ("1.0.0", {"tone": "stern", "size": 1})


def test_a_version_is_there_once_and_is_one() -> None:
    with pytest.raises(StartupError, match=r"'shop' 1\.0\.0 is a duplicate"):
        TemplateCatalog([Shop(), Shop()])
    with pytest.raises(StartupError, match=r"'shop': version '1\.0' is not MAJOR\.MINOR\.PATCH"):
        TemplateCatalog([Shop("1.0")])


def point(name: str, attribute: str, module: str = __name__) -> EntryPoint:
    return EntryPoint(name, f"{module}:{attribute}", "parley.templates")


def test_an_entry_point_is_a_template_or_makes_one() -> None:
    own = AssistantTemplate()
    found = all_templates([own], [point("b", "Shop"), point("a", "READY")])
    assert found[0] is own
    assert found[1] is READY
    assert isinstance(found[2], Shop)


READY = Shop("1.1.0")
READY.id = "ready"


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (point("x", "Nobody"), "can't be loaded: AttributeError"),
        (point("x", "y", "no_such_module"), "can't be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        (point("x", "NOTHING"), "can't be loaded: TypeError"),
        (point("x", "Broken"), "has no attribute 'id'"),
        (point("x", "AssistantTemplate"), "template 'assistant' is shipped by chat_gateway and by"),
    ],
)
def test_a_plugin_that_is_none_stops_the_start(bad: EntryPoint, complaint: str) -> None:
    with pytest.raises(StartupError, match=complaint):
        all_templates([AssistantTemplate()], [bad])


def test_two_packages_may_not_ship_one_template() -> None:
    class Dist:
        def __init__(self, name: str) -> None:
            self.name = name

    def of(package: str, version: str) -> EntryPoint:
        one = point(version, "Shop")
        vars(one).update(dist=Dist(package))
        return one

    with pytest.raises(StartupError, match="template 'shop' is shipped by a and by b"):
        all_templates([], [of("a", "1"), of("b", "2")])
