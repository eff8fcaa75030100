"""What the Responses API reads that others wrote: requests, items, ids, what callers and providers kept."""

import base64
import json
import math
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

from access.caller import ANONYMOUS
from chat_gateway.convert.tools_listed import tools_listed_from_bytes
from chat_gateway.http_edge.openai.responses.echo import echo_of
from chat_gateway.http_edge.openai.responses.ids import approved_call_id, parse_item_id, parse_response_id
from chat_gateway.http_edge.openai.responses.kept_data import kept_of_step
from chat_gateway.http_edge.openai.responses.logprobs import logprobs_of
from chat_gateway.http_edge.openai.responses.output_items import annotations_of
from chat_gateway.http_edge.openai.responses.request import FieldNames, read_response_request
from chat_gateway.http_edge.wire.turn_headers import TurnHeaders
from servicekit.errors import ServiceError
from tests.fuzz.inputs import foreign, json_values, with_foreign_members

PNG = "data:image/png;base64,iVBORw0KGgo="
ITEMS: list[dict[str, Any]] = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}], "status": "completed"},
    {"role": "user", "content": [{"type": "input_image", "image_url": PNG, "detail": "low"}]},
    {"role": "user", "content": [{"type": "input_file", "file_data": "aGk=", "filename": "a"}]},
    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": [], "logprobs": []}]},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "x"}], "phase": "commentary"},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": "fc", "status": "completed"},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]},
    {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "x"}], "encrypted_content": "e30="},
    {"type": "item_reference", "id": "msg_1.t.s"},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_YQ.t.s", "approve": True, "reason": "x"},
    {"type": "mcp_approval_request", "id": "mcpr_YQ.t.s", "arguments": "{}", "name": "f", "server_label": "s"},
    {"type": "mcp_call", "id": "mcp_1.t.s", "arguments": "{}", "name": "f", "server_label": "s", "output": "x"},
    {"type": "mcp_list_tools", "id": "mcpl_0.t.s", "server_label": "s", "tools": [], "error": None},
]
REQUEST: dict[str, Any] = {
    "model": "a@3",
    "input": "x",
    "instructions": "x",
    "conversation": {"id": "conv_1"},
    "previous_response_id": "resp_t.s",
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "metadata": {"a": "b"},
    "temperature": 0.5,
    "top_logprobs": 3,
    "user": "ann",
}
LOGPROBS = {"content": [{"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": [{"token": "b"}]}]}
KEPT = base64.urlsafe_b64encode(b'{"message":{"kind":"a","provider":"b","data":{}},"calls":{"c":{}}}')

_good = [json.dumps(item).encode() for item in ITEMS]
_items = st.lists(
    st.one_of(st.sampled_from(_good), *(with_foreign_members(item) for item in ITEMS)), min_size=1, max_size=5
)
bodies = st.one_of(
    foreign(json.dumps(REQUEST).encode()),
    with_foreign_members(REQUEST),
    _items.map(lambda items: b'{"model": "a", "input": [%s]}' % b",".join(items)),
)
texts = foreign(KEPT, b"resp_t.s", b"msg_1.t.s", b"mcpr_YQ.t.s").map(lambda data: data.decode("utf-8", "replace"))
answers = st.one_of(
    foreign(json.dumps(LOGPROBS).encode()),
    with_foreign_members(LOGPROBS),
    with_foreign_members(LOGPROBS["content"][0]).map(lambda one: b'{"content": [%s]}' % one),
    st.lists(json_values, max_size=3).map(lambda values: json.dumps(values).encode()),
)
stored = foreign(b'[{"server":"a","tools":[{"name":"b","parameters":{}}],"error":"c"}]', b'{"model":"a","tools":[{}]}')


def response_body(data: bytes) -> None:
    """What a request is taken for can be kept with the turn, and is read as it was."""
    with suppress(ServiceError):
        asked = read_response_request(data, TurnHeaders(), ANONYMOUS, names=FieldNames())
        assert echo_of(asked.turn.notes, "a").model == asked.echo.model


def kept_text(text: str) -> None:
    """Ids, and what callers keep for providers: what is none of ours is None, or empty."""
    kept_of_step(text)
    for ref in (parse_response_id(text), parse_item_id(text)):
        assert ref is None or ref
    assert isinstance(approved_call_id(text), str)


def said_of_answer(data: bytes) -> None:
    """What providers say beside an answer is of the right shapes, or left out."""
    for one in logprobs_of(data):
        assert type(one["token"]) is str
        assert math.isfinite(one["logprob"])
        assert all(type(byte) is int for byte in one["bytes"])
        json.dumps(one).encode()
    for one in annotations_of(data):
        assert type(one["url"]) is str


def kept_with_turn(data: bytes) -> None:
    """What stands with a turn is read, or is none."""
    echo_of(data, "a")
    tools_listed_from_bytes(data)
