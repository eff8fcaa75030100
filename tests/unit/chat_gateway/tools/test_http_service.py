"""Tools that are HTTP calls: a real service with the OpenAPI document of its framework, and calls one by one."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
import uvicorn
from litestar import Litestar, get, post
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter
from pydantic import BaseModel

from chat_gateway.model.tool_servers import BearerAuth, HttpCall, HttpService
from chat_gateway.model.tools import ServerTools, ToolOutcome
from chat_gateway.tools import argument_check, openapi
from chat_gateway.tools.http_operation import BadArgument, HttpOperation, of_call
from chat_gateway.tools.server import ServerUnavailable
from servicekit import traces
from tests.unit.chat_gateway.tools.opened import opened_room
from tests.unit.chat_gateway.tools.recorded_service import Recorded, call, recording, with_secrets


class Order(BaseModel):
    item: str
    count: int = 1
    note: str | None = None


@get("/orders/{order_id:str}", operation_id="get_order", summary="Reads an order.")
async def get_order(
    order_id: FromPath[str],
    tags: Annotated[list[str] | None, QueryParameter()] = None,
    limit: Annotated[int, QueryParameter(le=5)] = 3,
) -> Any:
    return {"id": order_id, "tags": tags, "limit": limit}


@post("/orders", operation_id="create_order")
async def create_order(data: JSONBody[Order], x_reason: Annotated[str, HeaderParameter(name="X-Reason")]) -> Any:
    return {"item": data.item, "count": data.count, "reason": x_reason}


@asynccontextmanager
async def litestar_service() -> AsyncIterator[HttpService]:
    app = Litestar([get_order, create_order])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield HttpService(f"http://127.0.0.1:{port}", openapi=json.dumps(app.openapi_schema.to_schema()))
    finally:
        server.should_exit = True
        await task


@pytest.fixture
async def recorded() -> AsyncIterator[Recorded]:
    async with recording() as served:
        yield served


async def test_operations_of_a_real_openapi_document() -> None:
    async with litestar_service() as service, opened_room() as room:
        room.put("shop", service)
        listed = {tool.name: tool for tool in (await room.listed(ServerTools("shop"))).tools}
        assert set(listed) == {"get_order", "create_order"}
        assert (listed["get_order"].idempotent, listed["create_order"].idempotent) == (True, False)
        assert listed["get_order"].description.startswith("Reads an order.")
        assert set(listed["get_order"].parameters["properties"]) == {"order_id", "tags", "limit"}
        assert listed["create_order"].parameters["properties"]["body"]["properties"].keys() == {"item", "count", "note"}

        result = await room.call("shop", "get_order", '{"order_id": "ä 1", "tags": ["x", "y&z"]}')
        assert json.loads(result.text) == {"id": "ä 1", "tags": ["x", "y&z"], "limit": 3}
        result = await room.call("shop", "create_order", '{"body": {"item": "tea", "count": 2}, "X-Reason": "thirst"}')
        assert json.loads(result.text) == {"item": "tea", "count": 2, "reason": "thirst"}

        for arguments in (
            '{"order_id": 7}',
            "{}",
            '{"order_id": "a", "limit": 9}',
            '{"order_id": "a", "other": 1}',
            '{"order_id": ".."}',
            '{"order_id": "../admin"}',
            '{"order_id": ""}',
        ):
            result = await room.call("shop", "get_order", arguments)
            assert result.outcome is ToolOutcome.INVALID_ARGUMENTS, (arguments, result)


async def test_single_calls_fill_path_query_and_body(recorded: Recorded) -> None:
    calls = (
        call("find", "/v1/users/{user}/orders"),
        call("change", "/v1/users/{user}", "PATCH", parameters={"type": "object", "required": ["name"]}),
        call("ping", "/ping", "POST", idempotent=True),
    )
    async with opened_room() as room:
        room.put("crm", HttpService(f"{recorded.url}/base/", {"X-Version": "2"}, calls=calls))
        await room.call("crm", "find", '{"user": "a/b c", "state": "open", "page": 2, "tags": ["x", "y"]}')
        method, path, body, headers = recorded.requests[-1]
        assert (method, path, body) == (
            "GET",
            "/base/v1/users/a%2Fb%20c/orders?state=open&page=2&tags=x&tags=y",
            "",
        )
        assert headers["X-Version"] == "2"
        assert "Idempotency-Key" not in headers
        await room.call("crm", "change", '{"user": "u1", "name": "Zoë"}')
        method, path, body, headers = recorded.requests[-1]
        assert (method, path, json.loads(body)) == ("PATCH", "/base/v1/users/u1", {"name": "Zoë"})
        assert headers["Idempotency-Key"] == "t-1/call-1"
        assert (await room.call("crm", "change", '{"user": "u1"}')).outcome is ToolOutcome.INVALID_ARGUMENTS
        assert (await room.call("crm", "ping")).text == "ok"
        assert "Idempotency-Key" not in recorded.requests[-1][3]


async def test_a_call_carries_the_trace_that_it_is_part_of(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "outgoing", lambda: ((traces.TRACEPARENT, "00-of-this-call"),))
    async with opened_room() as room:
        room.put("one", HttpService(recorded.url, calls=(HttpCall("text", "Reads.", "GET", "/text"),)))
        assert (await room.call("one", "text")).text == "plain"
    assert recorded.requests[-1][3]["traceparent"] == "00-of-this-call"


async def test_answers_become_results(recorded: Recorded) -> None:
    names = ("text", "picture", "missing", "big", "broken-json", "hang", "elsewhere")
    async with opened_room() as room:
        room.put("s", HttpService(recorded.url, calls=tuple(map(call, names))))
        assert (await room.call("s", "text")).text == "plain"
        assert (await room.call("s", "picture")).text == "[image/png, 100 bytes: not shown]"
        assert (await room.call("s", "broken-json")).text == '{"a": '
        missing = await room.call("s", "missing")
        assert (missing.outcome, "no such order" in missing.text, "404" in missing.text) == (
            ToolOutcome.ERROR,
            True,
            True,
        )
        assert "more than 10 MiB" in (await room.call("s", "big")).text
        assert (await room.call("s", "hang", seconds=0.3)).outcome is ToolOutcome.TIMEOUT
        assert (await room.call("s", "elsewhere")).outcome is ToolOutcome.DENIED


async def test_a_lost_connection_is_repeated_only_where_that_does_no_harm(recorded: Recorded) -> None:
    async with opened_room() as room:
        room.put("s", HttpService(recorded.url, calls=(call("read", "/drop"), call("write", "/drop", "POST"))))
        assert (await room.call("s", "write")).outcome is ToolOutcome.UNKNOWN
        assert len(recorded.requests) == 1
        assert (await room.call("s", "read")).outcome is ToolOutcome.UNKNOWN
        assert len(recorded.requests) > 2
        room.put("down", HttpService("http://127.0.0.1:9", calls=(call("read"),)))
        assert (await room.call("down", "read")).outcome is ToolOutcome.UNAVAILABLE


async def test_a_bearer_token_is_sent_and_never_shown(recorded: Recorded, tmp_path: Any) -> None:
    async with with_secrets(tmp_path, key="s3cret-of-the-crm") as room:
        room.put("crm", HttpService(recorded.url, calls=(call("echo"),)), BearerAuth("key"))
        result = await room.call("crm", "echo")
        assert recorded.requests[-1][3]["Authorization"] == "Bearer s3cret-of-the-crm"
        assert "s3cret" not in result.text
        (tmp_path / "default" / "key").write_text("another-s3cret")
        await room.call("crm", "echo")
        assert recorded.requests[-1][3]["Authorization"] == "Bearer another-s3cret"
        (tmp_path / "default" / "key").unlink()
        assert "'key'" in (await room.listed(ServerTools("crm"))).unavailable[0].reason


def operation(document: dict[str, Any]) -> HttpOperation:
    (found,) = openapi.operations(json.dumps({"openapi": "3.0.3", **document}))
    return found


def test_references_and_words_of_3_0_become_json_schema() -> None:
    found = operation(
        {
            "paths": {
                "/x/{id}": {
                    "parameters": [{"$ref": "#/components/parameters/id"}],
                    "post": {
                        "operationId": "make",
                        "parameters": [
                            {"name": "id", "in": "query", "schema": {"type": "integer", "nullable": True}},
                            {"name": "Authorization", "in": "header", "required": True, "schema": {"type": "string"}},
                            {"name": "f", "in": "query", "style": "deepObject", "schema": {"type": "object"}},
                            {"name": "p", "in": "query", "style": "pipeDelimited", "explode": False},
                        ],
                        "requestBody": {
                            "required": True,
                            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Node"}}},
                        },
                    },
                }
            },
            "components": {
                "parameters": {"id": {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}},
                "schemas": {
                    "Node": {
                        "type": "object",
                        "required": ["id", "name"],
                        "properties": {
                            "id": {"type": "string", "readOnly": True},
                            "name": {"type": "string", "example": "x"},
                            "size": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
                            "next": {"$ref": "#/components/schemas/Node"},
                        },
                    }
                },
            },
        }
    )
    assert found.parameters() == {
        "type": "object",
        "properties": {
            "path_id": {"type": "string"},
            "query_id": {"type": ["integer", "null"]},
            "f": {"type": "object"},
            "p": {},
            "body": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "size": {"type": "integer", "exclusiveMinimum": 0},
                    "next": {},
                },
            },
        },
        "required": ["path_id", "body"],
        "additionalProperties": False,
    }
    request = found.request({"path_id": "a", "query_id": 7, "f": {"k": "v"}, "p": [1, 2], "body": {"name": "n"}})
    assert request.path == "/x/a?id=7&f%5Bk%5D=v&p=1%7C2"
    assert request.body == b'{"name": "n"}'


@pytest.mark.parametrize(
    "parameter",
    [
        {"name": "c", "in": "cookie", "required": True, "schema": {"type": "string"}},
        {"name": "m", "in": "query", "required": True, "style": "spiral"},
        {"name": "x", "in": "path", "style": "matrix"},
    ],
)
def test_an_operation_that_can_not_be_called_is_not_offered(parameter: dict[str, Any]) -> None:
    document = {"openapi": "3.1.0", "paths": {"/{x}": {"get": {"operationId": "o", "parameters": [parameter]}}}}
    assert openapi.operations(json.dumps(document)) == []


@pytest.mark.parametrize("document", ["[", "[" * 100_000, '{"swagger": "2.0"}', "[]"])
def test_what_is_no_openapi_document_is_refused(document: str) -> None:
    with pytest.raises(ServerUnavailable):
        openapi.operations(document)


def test_references_that_multiply_cost_a_bounded_time() -> None:
    schemas: dict[str, Any] = {
        f"s{n}": {"type": "object", "properties": {k: {"$ref": f"#/components/schemas/s{n + 1}"} for k in "abcdefgh"}}
        for n in range(40)
    }
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/s0"}}}}
    document = {"paths": {"/": {"post": {"operationId": "o", "requestBody": body}}}, "components": {"schemas": schemas}}
    assert operation(document).name == "o"
    assert operation({"paths": {"/": {"$ref": "#/paths/~1"}, "/y": {"get": {"operationId": "o"}}}}).path == "/y"


def test_arguments_are_checked_at_a_bounded_cost() -> None:
    chain: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    assert argument_check.problems({"$defs": {**chain, "d40": {}}, "$ref": "#/$defs/d0"}, {"a": 1}) == []
    assert argument_check.problems({"properties": {"a": {"pattern": "(a+)+$"}}}, {"a": "a" * 5000 + "!"}) == []
    assert argument_check.problems({"type": "nonsense", "$ref": "https://example.com/x"}, {"a": 1}) == []
    assert argument_check.problems({"properties": {"a": {"items": {"type": "string"}}}}, {"a": [1]}) == [
        "a[0]: 1 is not of type 'string'"
    ]


@pytest.mark.parametrize("left_out", [{"format": "x"}, {"pattern": "x"}, {"patternProperties": {"^x": False}}])
def test_what_is_not_checked_keeps_nothing_else_from_being_checked(left_out: dict[str, Any]) -> None:
    schema = {**left_out, "required": ["a"]}
    assert argument_check.problems(schema, {"xb": 1}) == ["'a' is a required property"]


def test_no_argument_leaves_its_segment() -> None:
    made = of_call(HttpCall("x", "x", "GET", "/users/{id}/x"))
    for given in ("..", ".", "a/../b", "..\\x", "", "a\0b", "../"):
        with pytest.raises(BadArgument):
            made.request({"id": given})
    assert made.request({"id": "a/b?c#d%2e"}).path == "/users/a%2Fb%3Fc%23d%252e/x"
    with pytest.raises(BadArgument):
        made.request({})
