"""What native kinds make of a `response_format`, and what they refuse of it."""

import json
from typing import Any

import pytest

from chat_gateway.model.provider_errors import UnsupportedField
from chat_gateway.model.turn import Message, Sampling
from chat_gateway.providers.adapter import Adapter
from chat_gateway.providers.anthropic.adapter import AnthropicAdapter
from chat_gateway.providers.gemini.adapter import GeminiAdapter
from chat_gateway.providers.provider import ModelCall
from contract.enums import Role

ADAPTERS: dict[str, Adapter] = {"anthropic": AnthropicAdapter("local"), "gemini": GeminiAdapter("local")}
SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}


def sent(kind: str, described: dict[str, Any], **beside: Any) -> Any:
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, **described}, **beside}
    call = ModelCall("m", [Message(Role.USER, "hi")], Sampling(), response_format=asked)
    body = json.loads(ADAPTERS[kind].request(call, stream=False).body)
    if kind == "anthropic":
        return body["output_config"]["format"]["schema"]
    return body["generationConfig"]["responseJsonSchema"]


@pytest.mark.parametrize("kind", list(ADAPTERS))
def test_the_description_of_a_format_is_the_schemas(kind: str) -> None:
    assert sent(kind, {"description": "A thing.", "strict": True}) == {**SCHEMA, "description": "A thing."}
    said = {"schema": {**SCHEMA, "description": "Its own."}}
    assert sent(kind, {"description": "A thing.", **said}) == said["schema"]


@pytest.mark.parametrize("kind", list(ADAPTERS))
def test_what_is_not_openais_of_a_format_is_refused_by_its_place(kind: str) -> None:
    with pytest.raises(UnsupportedField) as caught:
        sent(kind, {"grammar": "g"}, mode="m")
    assert [one.field for one in caught.value.violations] == [
        "response_format.mode",
        "response_format.json_schema.grammar",
    ]
