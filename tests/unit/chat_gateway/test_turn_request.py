"""Turns that are asked for over gRPC are bounded before they are converted."""

import math
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from chat_gateway.grpc_edge.convert import request_from_proto
from parley.chat.v1 import chat_service_pb2 as pb
from parley.session.v1 import message_pb2
from servicekit.errors import InvalidArgument

USER = message_pb2.ROLE_USER
MAX_ITEMS = 10_000
MAX_STRUCT_BYTES = 256 * 1024


def turn(**fields: Any) -> pb.TurnInput:
    """A turn with one message, unless told otherwise."""
    return pb.TurnInput(agent_id="a", **{"messages": [message_pb2.Message(role=USER, content="hello")], **fields})


def text_of(size: int) -> Struct:
    """A JSON object of about `size` bytes on the wire."""
    message = Struct()
    message.fields["x"].string_value = "y" * size
    return message


def holding(number: float) -> Struct:
    """A JSON object with a number in it."""
    message = Struct()
    message.fields["x"].number_value = number
    return message


def with_parts(messages: int, parts: int) -> list[message_pb2.Message]:
    """Messages with empty parts."""
    return [message_pb2.Message(role=USER, parts=[message_pb2.ContentPart()] * parts) for _ in range(messages)]


def with_calls(count: int) -> list[message_pb2.Message]:
    """A message with empty tool calls."""
    return [message_pb2.Message(role=USER, tool_calls=[message_pb2.ToolCall()] * count)]


def tools(count: int, size: int) -> list[pb.Tool]:
    """Tools whose parameters have about `size` bytes each."""
    return [pb.Tool(name=f"t{number}", parameters=text_of(size)) for number in range(count)]


NOT_JSON = "must be JSON: numbers must be finite, and each value of a kind"


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"messages": [message_pb2.Message(role=USER)] * (MAX_ITEMS + 1)}, "messages", "10000 messages"),
        ({"messages": with_parts(101, 100)}, "messages", "10000 parts and tool calls"),
        ({"messages": with_calls(MAX_ITEMS + 1)}, "messages", "10000 parts and tool calls"),
        ({"tools": tools(1, MAX_STRUCT_BYTES)}, "tools", "262144 bytes of parameters"),
        ({"tools": tools(16, MAX_STRUCT_BYTES // 16)}, "tools", "262144 bytes of parameters"),
        ({"response_format": text_of(MAX_STRUCT_BYTES)}, "response_format", "262144 bytes"),
        ({"response_format": holding(math.nan)}, "response_format", NOT_JSON),
        ({"tools": [pb.Tool(name="t", parameters=holding(math.inf))]}, "tools.parameters", NOT_JSON),
    ],
    ids=[
        "messages",
        "parts",
        "tool calls",
        "one tool",
        "tools together",
        "response format",
        "nan",
        "infinity in a tool",
    ],
)
def test_what_takes_long_to_convert_or_is_no_json_is_refused_by_name(
    fields: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        request_from_proto(turn(**fields), None)
    assert [one.field for one in caught.value.violations] == [field]
    assert caught.value.violations[0].description.endswith(problem)


def test_every_bound_that_is_broken_is_named() -> None:
    broken = turn(messages=with_calls(MAX_ITEMS + 1), tools=tools(1, MAX_STRUCT_BYTES))
    with pytest.raises(InvalidArgument) as caught:
        request_from_proto(broken, None)
    assert [one.field for one in caught.value.violations] == ["messages", "tools"]


def test_what_is_at_the_bounds_is_taken() -> None:
    asked = request_from_proto(
        turn(
            messages=with_parts(100, 100),
            tools=tools(4, MAX_STRUCT_BYTES // 4 - 100),
            response_format=text_of(MAX_STRUCT_BYTES - 100),
        ),
        None,
    )
    assert (len(asked.messages), len(asked.tools)) == (100, 4)
