"""A request of the wrong shape is answered with all that is wrong with it, each by the caller's own name."""

import json
from typing import Any

import pytest

from access.caller import ANONYMOUS
from chat_gateway.http_edge.openai.chat.handler import read_request
from chat_gateway.http_edge.openai.chat.schema import ChatCompletionRequest
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from chat_gateway.model.rules import DEFAULT_BOUNDS
from contract.chat_fields import OWN_FIELDS
from servicekit.errors import ServiceError

USER = {"role": "user", "content": "hi"}


def faults(**body: Any) -> list[str]:
    body = {"model": "support", "messages": [USER]} | body
    with pytest.raises(ServiceError) as refused:
        read_request(json.dumps(body).encode(), TurnHeaders(), ANONYMOUS, DEFAULT_BOUNDS)
    assert refused.value.reason in ("INVALID_FIELD", "MALFORMED_BODY")
    return [violation.field for violation in refused.value.violations]


def test_every_fault_of_shape_and_of_meaning_comes_at_once() -> None:
    found = faults(
        messages=[{"role": "wizard", "content": "x"}, {"role": 1}, {"content": "x"}, 3],
        temperature="hot",
        top_p=7,
        n=0,
        stop=5,
        tools={},
        metadata={"a": 1},
    )
    assert set(found) == {
        "messages[0].role", "messages[1].role", "messages[2].role", "messages[3]",
        "temperature", "top_p", "n", "stop", "tools", "metadata[...]",
    }  # fmt: skip
    assert len(found) == 10


def test_what_is_required_is_said_beside_the_rest() -> None:
    body = {"model": "support", "messages": [USER]}
    for missing in body:
        given = {name: value for name, value in body.items() if name != missing} | {"stream": "yes"}
        with pytest.raises(ServiceError) as refused:
            read_request(json.dumps(given).encode(), TurnHeaders(), ANONYMOUS, DEFAULT_BOUNDS)
        assert {violation.field for violation in refused.value.violations} == {missing, "stream"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"functions": []}, "functions"),
        ({"function_call": "none"}, "function_call"),
        ({"audio": {}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"messages": [USER, {"role": "assistant", "content": "x", "function_call": {"name": "f"}}, USER]},
         "messages[1].function_call"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"max_completion_tokens": 0, "busy": "no"}, "busy"),
        ({"n": 9, "store": False}, "n"),
        ({"n": 2, "session_id": "s"}, "n"),
        ({"n": 2}, "n"),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_honoured_are_named(body: dict[str, Any], field: str) -> None:
    found = faults(**body, frequency_penalty=9)
    assert sorted({*found} - {"max_completion_tokens"}) == sorted([field, "frequency_penalty"])


def test_null_is_not_said_for_every_field() -> None:
    nulls = dict.fromkeys(OWN_FIELDS - {"model", "messages"})
    body = {"model": "support", "messages": [USER], "reasoning_effort": None} | nulls
    _, request = read_request(json.dumps(body).encode(), TurnHeaders(), ANONYMOUS, DEFAULT_BOUNDS)
    assert request.extra == {}
    assert request.store is None


def test_the_contract_knows_every_field_of_our_own() -> None:
    assert frozenset(ChatCompletionRequest.__struct_fields__) == OWN_FIELDS
