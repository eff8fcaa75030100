"""What a request for embeddings may be, and what is wrong with it, by the names that callers know."""

import json
from typing import Any

import pytest

from access.caller import CHAT, Caller
from access.errors import UserDenied
from chat_gateway.http_edge.openai.embeddings.request import read_request
from chat_gateway.http_edge.openai.embeddings.schema import MAX_INPUTS, MAX_TOKENS
from chat_gateway.http_edge.wire.errors import MalformedBody
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model.not_found import ModelNotFound
from chat_gateway.providers.provider import VectorFormat
from servicekit.errors import InvalidArgument

ANN = Caller("key", "default", frozenset({CHAT}), user_id="ann")


def read(body: Any = None, caller: Caller = ANN, headers: TurnHeaders | None = None, **fields: Any) -> Any:
    asked = {"model": "a", "input": "x"} | fields if body is None else body
    return read_request(json.dumps(asked).encode(), headers or TurnHeaders(), caller)[1]


def test_inputs_come_in_four_forms() -> None:
    assert read(input="x").inputs == ["x"]
    assert read(input=["x", "y"]).inputs == ["x", "y"]
    assert read(input=[1, 2]).inputs == [[1, 2]]
    assert read(input=[[1, 2], [3]]).inputs == [[1, 2], [3]]


def test_a_model_is_an_agent_or_a_providers_own() -> None:
    assert (read(model="a").agent_id, read(model="a@3").agent_revision) == ("a", 3)
    own = read(model="mock/BAAI/bge-m3")
    assert (own.agent_id, own.provider, own.model) == ("", "mock", "BAAI/bge-m3")


@pytest.mark.parametrize("model", ["No agent", "/m", "mock/", "Mock/m"])
def test_what_can_be_no_model_is_not_found(model: str) -> None:
    with pytest.raises(ModelNotFound):
        read(model=model)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [""]}, "input[0]"),
        ({"input": ["x", None]}, "input[1]"),
        ({"input": [[]]}, "input[0]"),
        ({"input": [-1]}, "input"),
        ({"input": [1, "x"]}, "input"),
        ({"input": ["x", [1]]}, "input"),
        ({"input": [[1.5]]}, "input[0]"),
        ({"input": [True]}, "input[0]"),
        ({"input": ["x"] * (MAX_INPUTS + 1)}, "input"),
        ({"input": [1] * (MAX_TOKENS + 1)}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 65_537}, "dimensions"),
        ({"user": "x" * 257}, "user"),
        ({"model": ""}, "model"),
        ({"model": "m/" + "x" * 512}, "model"),
        ({"model": "a@b"}, "model"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(caller=Caller("key", "default", frozenset({CHAT})), **fields)
    assert param in {violation.field for violation in caught.value.violations}


@pytest.mark.parametrize("body", [[], {"model": "a"}, {"input": "x"}, {"model": "a", "input": 1}])
def test_another_shape_is_malformed(body: Any) -> None:
    with pytest.raises(MalformedBody):
        read(body)


def test_many_long_texts_are_taken() -> None:
    asked = read(input=["one, two, [three], {four}"] * MAX_INPUTS, encoding_format="base64")
    assert (len(asked.inputs), asked.encoding) == (MAX_INPUTS, VectorFormat.BASE64)


def test_other_fields_are_the_providers() -> None:
    assert read(input_type="query", truncate=None).extra == {"input_type": b'"query"'}


def test_credentials_of_one_user_name_no_other() -> None:
    assert read(user="ann").user == "ann"
    for headers, fields in ((TurnHeaders(user_id="bob"), {}), (TurnHeaders(), {"user": "bob"})):
        with pytest.raises(UserDenied):
            read(headers=headers, **fields)


def test_a_name_that_is_no_text_is_malformed() -> None:
    with pytest.raises(MalformedBody):
        read_request(b'{"model": "a", "input": "x", "\x80": 1}', TurnHeaders(), ANN)
