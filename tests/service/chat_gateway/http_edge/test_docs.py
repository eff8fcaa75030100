"""/docs: what a browser needs, all of it from here, and a document that is OpenAPI 3.0."""

import re
from typing import Any

from access.authenticator import Authenticator
from chat_gateway.http_edge.admin.described_rules import PARAMETERS, SCHEMAS
from tests.service.chat_gateway.http_edge.edge import Edge, running_edge

ROUTES = {
    ("post", "/v1/chat/completions"),
    ("post", "/v1/chat/completions:preview"),
    ("post", "/v1/agents"),
    ("get", "/v1/agents"),
    ("get", "/v1/agents/{agent_id}"),
    ("put", "/v1/agents/{agent_id}"),
    ("patch", "/v1/agents/{agent_id}"),
    ("delete", "/v1/agents/{agent_id}"),
    ("get", "/v1/agents/{agent_id}/revisions"),
    ("post", "/v1/agents/{agent_id}:rollback"),
    ("post", "/v1/agents/{agent_id}:undelete"),
    ("get", "/v1/agents/{agent_id}/compare"),
    ("post", "/v1/embeddings"),
    ("get", "/v1/chat/completions"),
    ("get", "/v1/chat/completions/{completion_id}"),
    ("get", "/v1/chat/completions/{completion_id}/messages"),
    ("get", "/v1/chat/completions/{completion_id}/events"),
    ("post", "/v1/chat/completions/{completion_id}"),
    ("post", "/v1/chat/completions/{completion_id}:cancel"),
    ("delete", "/v1/chat/completions/{completion_id}"),
    ("get", "/v1/templates"),
    ("post", "/v1/responses"),
    ("post", "/v1/responses/compact"),
    ("post", "/v1/conversations"),
    *((method, "/v1/conversations/{conversation_id}") for method in ("get", "post", "delete")),
    *((method, "/v1/conversations/{conversation_id}/items") for method in ("get", "post")),
    *((method, "/v1/conversations/{conversation_id}/items/{item_id}") for method in ("get", "delete")),
    ("get", "/v1/responses/{response_id}"),
    ("delete", "/v1/responses/{response_id}"),
    ("post", "/v1/responses/{response_id}/cancel"),
    ("get", "/v1/responses/{response_id}/input_items"),
    ("get", "/v1/tool_servers"),
    ("post", "/v1/tool_servers"),
    *((method, "/v1/tool_servers/{tool_server_id}") for method in ("get", "put", "patch", "delete")),
    ("get", "/v1/tool_servers/{tool_server_id}/revisions"),
    ("post", "/v1/tool_servers/{tool_server_id}:test"),
    ("get", "/v1/providers"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{agent_id}"),
    ("get", "/v1/sessions"),
    ("get", "/v1/sessions/{session_id}"),
    ("patch", "/v1/sessions/{session_id}"),
    ("delete", "/v1/sessions/{session_id}"),
    ("get", "/v1/sessions/{session_id}/messages"),
    ("post", "/v1/sessions/{session_id}:fork"),
    ("post", "/v1/sessions:purge"),
    ("post", "/v1/users:export"),
    ("post", "/v1/users:erase"),
    ("post", "/v1/projects"),
    ("get", "/v1/auth"),
    ("get", "/v1/caller"),
    ("get", "/v1/figures"),
    ("get", "/v1/replicas"),
    ("get", "/v1/projects"),
    ("delete", "/v1/projects/{project_id}"),
    ("post", "/v1/api_keys"),
    ("get", "/v1/api_keys"),
    ("get", "/v1/api_keys/{key_id}"),
    ("delete", "/v1/api_keys/{key_id}"),
    ("post", "/v1/api_keys/{key_id}:rotate"),
    ("get", "/v1/audit"),
    ("get", "/v1/instances"),
    ("post", "/v1/instances:evict"),
    ("get", "/livez"),
    ("get", "/health"),
    ("get", "/readyz"),
    ("get", "/startedz"),
    ("get", "/metrics"),
}


async def test_the_page_loads_only_what_is_served_here(edge: Edge) -> None:
    page = await edge.client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 4
    for link in links:
        answer = await edge.client.get(link)
        assert (answer.status_code, bool(answer.content)) == (200, True), link
    assert "/docs/openapi.json" in (await edge.client.get("/docs/start.js")).text


async def test_the_document_has_every_route(edge: Edge) -> None:
    document = (await edge.client.get("/docs/openapi.json")).json()
    assert document["openapi"] == "3.0.3"
    assert {(method, path) for path, item in document["paths"].items() for method in item} == ROUTES


async def test_every_reference_is_there_and_nothing_is_newer_than_3_0(edge: Edge) -> None:
    document = (await edge.client.get("/docs/openapi.json")).json()
    schemas = document["components"]["schemas"]
    for node in _nodes(document):
        assert not isinstance(node.get("type"), list), node
        assert node.get("type") != "null", node
        assert "const" not in node
        reference = node.get("$ref")
        if isinstance(reference, str):
            assert reference.removeprefix("#/components/schemas/") in schemas, reference


async def test_chat_completions_are_described_with_their_errors(edge: Edge) -> None:
    document = (await edge.client.get("/docs/openapi.json")).json()
    operation = document["paths"]["/v1/chat/completions"]["post"]
    schemas = document["components"]["schemas"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ChatCompletionRequest"
    }
    assert set(schemas["ChatCompletionRequest"]["required"]) == {"model"}, "approvals come without messages"
    assert schemas["ChatCompletionRequest"]["properties"]["temperature"]["nullable"]
    assert set(operation["responses"]) == {"200", "400", "404", "409", "429", "500", "502", "503", "504"}
    assert set(schemas["ErrorObject"]["required"]) == {"message", "type", "param", "code"}
    for path, item in document["paths"].items():
        for described in item.values():
            for status, response in described["responses"].items():
                if status >= "400" and path.startswith("/v1/"):
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorBody"}, (path, status)


async def test_generators_find_no_default_to_send_and_no_parameter_that_is_null(edge: Edge) -> None:
    document = (await edge.client.get("/docs/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert [node for node in _nodes(schemas) if "default" in node and "type" in node] == []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", ()):
                assert "nullable" not in parameter["schema"], (method, path, parameter)
            assert operation["tags"], (method, path)
    assert set(schemas["Agent"]["required"]) > {"id", "name", "revision", "uid", "etag", "object"}
    assert "required" not in schemas["AgentInput"]
    assert not {"uid", "revision", "create_time"} & set(schemas["AgentInput"]["properties"])
    assert set(schemas["SessionList"]["required"]) == {"data", "next_page_token", "object"}


async def test_patterns_and_ranges_stand_in_the_document(edge: Edge) -> None:
    document = (await edge.client.get("/docs/openapi.json")).json()
    schemas = document["components"]["schemas"]
    for name, fields in SCHEMAS.items():
        for field, rules in fields.items():
            described = schemas[name]["properties"][field]
            assert described.items() >= rules.items(), (name, field)
    named = {}
    for item in document["paths"].values():
        for operation in item.values():
            named |= {one["name"]: one["schema"] for one in operation.get("parameters", ())}
    for name, rules in PARAMETERS.items():
        assert named[name].items() >= rules.items(), name


async def test_what_is_streamed_as_lines_is_described_so(edge: Edge) -> None:
    paths = (await edge.client.get("/docs/openapi.json")).json()["paths"]
    lines = "application/x-ndjson"
    assert set(paths["/v1/users:export"]["post"]["responses"]["200"]["content"]) == {lines}
    assert set(paths["/v1/audit"]["get"]["responses"]["200"]["content"]) == {"application/json", lines}


async def test_credentials_are_asked_for_where_authentication_is_on(edge: Edge) -> None:
    document = (await edge.client.get("/docs/openapi.json")).json()
    assert "securitySchemes" not in document["components"]
    assert not any("security" in node or "401" in node for node in _nodes(document["paths"]))
    async with running_edge(authenticator=Authenticator({})) as guarded:
        document = (await guarded.client.get("/docs/openapi.json")).json()
    assert document["components"]["securitySchemes"] == {"api_key": {"type": "http", "scheme": "bearer"}}
    for path, item in document["paths"].items():
        for operation in item.values():
            needs = operation["x-parley-scope"] != ""
            assert operation["security"] == ([{"api_key": []}] if needs else []), path
            assert ("401" in operation["responses"]) == needs, path


def _nodes(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [found for item in node for found in _nodes(item)]
    if not isinstance(node, dict):
        return []
    return [node, *[found for value in node.values() for found in _nodes(value)]]


async def test_what_clients_of_openai_compatible_servers_look_for_answers(edge: Edge) -> None:
    health = await edge.client.get("/health")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    document = await edge.client.get("/openapi.json")
    assert document.json() == (await edge.client.get("/docs/openapi.json")).json()
