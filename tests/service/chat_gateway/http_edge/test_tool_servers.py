"""/v1/tool_servers over a real socket, with a scripted config_svc."""

from typing import Any

import pytest

from chat_gateway.model.tool_servers import ToolServerTest
from chat_gateway.model.tools import GatewayTool
from parley.config.v1 import tool_server_pb2
from parley.config.v1 import tool_server_service_pb2 as pb
from servicekit.errors import Code, RemoteError, Violation
from tests.service.chat_gateway.http_edge.edge import Edge
from tests.service.chat_gateway.http_edge.samples import TIME

CALL = {
    "name": "get_customer",
    "description": "Reads.",
    "method": "GET",
    "path": "/c/{id}",
    "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
    "idempotent": True,
}
KINDS: dict[str, dict[str, Any]] = {
    "mcp": {
        "mcp": {"url": "https://mcp.example/mcp", "headers": {"X-Team": "cx"}},
        "auth": {"bearer": {"secret": "github-token"}},
    },
    "calls": {
        "http": {"base_url": "https://crm.example", "calls": [CALL]},
        "auth": {"header": {"name": "X-Key", "secret": "k"}},
    },
    "openapi": {
        "http": {"base_url": "https://crm.example", "openapi": '{"openapi":"3.1.0"}'},
        "auth": {
            "oauth": {
                "token_url": "https://idp/",
                "client_id": "c",
                "client_secret": "s",
                "scopes": ["x"],
                "resource": "https://r/",
            }
        },
    },
}


def written(kind: str) -> dict[str, Any]:
    return {"id": "one", "name": "One", "labels": {"team": "cx"}, **KINDS[kind]}


def stored(kind: str) -> tool_server_pb2.ToolServer:
    return tool_server_pb2.ToolServer(
        id="one",
        display_name="One",
        labels={"team": "cx"},
        project="default",
        uid="u1",
        revision=2,
        etag="e2",
        create_time=TIME,
        update_time=TIME,
        **KINDS[kind],
    )


def read(kind: str) -> dict[str, Any]:
    times = dict.fromkeys(("create_time", "update_time"), "2026-05-04T03:02:01Z")
    return written(kind) | {"object": "tool_server", "uid": "u1", "revision": 2, "etag": "e2", **times}


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_written_arrives_and_comes_back(edge: Edge, kind: str) -> None:
    edge.peers.answers["CreateToolServer"] = pb.CreateToolServerResponse(tool_server=stored(kind))
    answer = await edge.client.post("/v1/tool_servers", json=written(kind))
    assert (answer.status_code, answer.json()) == (201, read(kind))
    assert (answer.headers["etag"], answer.headers["location"]) == ('"e2"', "/v1/tool_servers/one")
    expected = stored(kind)
    for name in ("project", "uid", "revision", "etag", "create_time", "update_time"):
        expected.ClearField(name)
    assert edge.peers.asked("CreateToolServer").tool_server == expected
    edge.peers.answers["GetToolServer"] = pb.GetToolServerResponse(tool_server=stored(kind))
    edge.peers.answers["UpdateToolServer"] = pb.UpdateToolServerResponse(tool_server=stored(kind))
    got = await edge.client.get("/v1/tool_servers/one")
    assert got.json() == read(kind)
    assert (await edge.client.put("/v1/tool_servers/one", json=got.json())).status_code == 200
    asked = edge.peers.asked("UpdateToolServer")
    assert (asked.update_mask.paths, asked.tool_server.etag) == (["*"], "e2")


async def test_a_document_may_be_an_object(edge: Edge) -> None:
    edge.peers.answers["CreateToolServer"] = pb.CreateToolServerResponse(tool_server=stored("openapi"))
    body = written("openapi") | {"http": {"base_url": "https://crm.example", "openapi": {"openapi": "3.1.0"}}}
    assert (await edge.client.post("/v1/tool_servers", json=body)).status_code == 201
    assert edge.peers.asked("CreateToolServer").tool_server.http.openapi == '{"openapi":"3.1.0"}'


async def test_a_patch_merges(edge: Edge) -> None:
    edge.peers.answers["GetToolServer"] = pb.GetToolServerResponse(tool_server=stored("mcp"))
    edge.peers.answers["UpdateToolServer"] = pb.UpdateToolServerResponse(tool_server=stored("mcp"))
    change = {"mcp": {"url": "https://new/"}, "auth": {"bearer": None, "header": {"name": "X", "secret": "s"}}}
    assert (await edge.client.patch("/v1/tool_servers/one", json=change)).status_code == 200
    asked = edge.peers.asked("UpdateToolServer")
    assert asked.update_mask.paths == ["mcp", "auth"]
    assert asked.tool_server.mcp.url == "https://new/"
    assert asked.tool_server.mcp.headers == {"X-Team": "cx"}
    assert asked.tool_server.auth.header.name == "X"
    assert asked.tool_server.etag == "e2"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"http": {"base_url": "https://x"}}, "mcp"),
        ({"auth": {"bearer": {"secret": "a"}, "header": {"name": "b", "secret": "c"}}}, "auth"),
        ({"auth": {"bearer": {"value": "a"}}}, "auth.bearer.value"),
        ({"mcp": {"url": 1}}, "mcp.url"),
    ],
)
async def test_the_wrong_shape_is_named(edge: Edge, change: dict[str, Any], field: str) -> None:
    answer = await edge.client.post("/v1/tool_servers", json=written("mcp") | change)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_lists_revisions_and_deletion(edge: Edge) -> None:
    edge.peers.answers["ListToolServers"] = pb.ListToolServersResponse(
        tool_servers=[stored("mcp")], next_page_token="t"
    )
    listed = await edge.client.get("/v1/tool_servers", params={"filter": "kind = mcp", "page_size": 1})
    assert listed.json() == {"object": "list", "data": [read("mcp")], "next_page_token": "t"}
    assert edge.peers.asked("ListToolServers").filter == "kind = mcp"
    revision = pb.ToolServerRevision(
        tool_server=stored("mcp"), author="me", comment="why", create_time=TIME, changed_fields=["display_name"]
    )
    edge.peers.answers["ListToolServerRevisions"] = pb.ListToolServerRevisionsResponse(revisions=[revision])
    revisions = (await edge.client.get("/v1/tool_servers/one/revisions")).json()["data"]
    assert [(one["revision"], one["changed_fields"], one["tool_server"]["id"]) for one in revisions] == [
        (2, ["name"], "one")
    ]
    edge.peers.answers["DeleteToolServer"] = pb.DeleteToolServerResponse()
    assert (await edge.client.delete("/v1/tool_servers/one", headers={"If-Match": '"e2"'})).status_code == 204
    assert edge.peers.asked("DeleteToolServer").etag == "e2"


async def test_a_server_is_tried_out(edge: Edge) -> None:
    tool = GatewayTool("add", "Adds.", {"type": "object"}, "one", idempotent=True)
    edge.tool_server_tests.outcome = ToolServerTest((tool,), left_out=2)
    answer = await edge.client.post("/v1/tool_servers/one:test")
    assert (answer.status_code, edge.tool_server_tests.asked) == (200, [("default", "one")])
    assert answer.json() == {
        "object": "tool_server.test",
        "ok": True,
        "problem": "",
        "tools": [{"name": "add", "description": "Adds.", "parameters": {"type": "object"}, "idempotent": True}],
        "left_out_count": 2,
    }
    edge.tool_server_tests.outcome = ToolServerTest((), "can't be connected to")
    failed = (await edge.client.post("/v1/tool_servers/one:test")).json()
    assert (failed["ok"], failed["problem"], failed["tools"]) == (False, "can't be connected to", [])


async def test_violations_carry_the_names_of_this_api(edge: Edge) -> None:
    edge.peers.answers["CreateToolServer"] = RemoteError(
        "tool_server.display_name: is long",
        code=Code.INVALID_ARGUMENT,
        reason="INVALID_FIELD",
        violations=[Violation("tool_server.display_name", "is long"), Violation("tool_server.mcp.url", "is required")],
    )
    error = (await edge.client.post("/v1/tool_servers", json=written("mcp"))).json()["error"]
    assert [one["field"] for one in error["violations"]] == ["name", "mcp.url"]
