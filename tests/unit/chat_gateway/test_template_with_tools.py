"""Functions as tools, and the template of docs/templates.md as it is written there."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chat_gateway.agents.functions import function_tool, schema_of
from chat_gateway.model.tools import ToolOutcome
from chat_gateway.model.turn import FinishReason
from servicekit.errors import ServiceError
from tests.unit.chat_gateway.stepping_provider import SteppingProvider, calling, text
from tests.unit.chat_gateway.world import FakeConfigs, World, asks, make_config

PAGE = Path(__file__).resolve().parents[3] / "docs" / "templates.md"


def documented() -> dict[str, Any]:
    [program] = [one for one in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S) if "Letters" in one]
    assert sum(bool(line.strip()) for line in program.splitlines()) <= 30, "with two tools, it is a short file"
    module: dict[str, Any] = {"__name__": "documented"}
    exec(compile(program, str(PAGE), "exec"), module)
    return module


async def test_the_template_of_the_documents_calls_its_functions() -> None:
    provider = SteppingProvider(
        calling(("c1", "count", '{"text": "a b"}'), ("c2", "count", '{"text": 1}')),
        calling(("c3", "shout", '{"text": "hey"}')),
        text("HEY"),
    )
    letters = documented()["LettersTemplate"]()
    world = World(provider=provider, configs=FakeConfigs(make_config(template_id="letters")), templates=[letters])
    outcome = await world.runner.run(asks(session_id="s"))
    assert [(tool.name, tool.description) for tool in provider.calls[0].tools] == [
        ("count", "Counts the letters of a text."),
        ("shout", "Writes a text in capitals."),
    ]
    results = [one.content for one in provider.calls[1].messages[-2:]]
    assert results[0] == "2"
    assert results[1].startswith("The arguments are not valid: Expected `str`")
    assert (outcome.finish_reason, outcome.pending[0].name) == (FinishReason.REQUIRES_APPROVAL, "shout")
    assert world.called("function", "template", "ok") == 1
    assert world.called("function", "template", "invalid_arguments") == 1


class Point(msgspec.Struct):
    x: int
    inner: "list[Inner]" = []


class Inner(msgspec.Struct):
    y: int


async def point(arguments: Point) -> str:
    """Fails."""
    if arguments.x:
        raise ServiceError("x is taken")
    raise RuntimeError("the password is hunter2")


@pytest.mark.parametrize(
    ("arguments", "says", "outcome"),
    [
        ('{"x": 1}', "The tool failed: x is taken", ToolOutcome.ERROR),
        ('{"x": 0}', "The tool failed.", ToolOutcome.ERROR),
        ("{}", "The arguments are not valid", ToolOutcome.INVALID_ARGUMENTS),
    ],
)
async def test_what_a_function_fails_with_is_a_result(arguments: str, says: str, outcome: ToolOutcome) -> None:
    result = await function_tool(point).call(arguments)
    assert result.outcome is outcome
    assert result.text.startswith(says)
    assert "hunter2" not in result.text


def test_parameters_are_the_schema_of_the_argument() -> None:
    schema = schema_of(Point)
    assert schema["type"] == "object"
    assert schema["properties"]["x"] == {"type": "integer"}
    assert schema["$defs"]["Inner"]["properties"] == {"y": {"type": "integer"}}


def test_a_function_of_another_form_is_refused_when_it_is_made() -> None:
    async def undocumented(arguments: Point) -> str:
        return ""

    async def two(one: Point, other: Point) -> str:
        """Takes two."""
        return ""

    async def number(one: int) -> str:
        """Takes no object."""
        return ""

    for wrong in (undocumented, two, number):
        with pytest.raises(TypeError):
            function_tool(wrong)  # type: ignore[arg-type]
