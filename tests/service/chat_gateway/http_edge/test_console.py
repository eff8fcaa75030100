"""The console's files over HTTP: their types and headers, and that nothing else is served there."""

import pytest

from chat_gateway.http_edge.console.files import ConsoleFiles
from chat_gateway.http_edge.dependencies import HttpSettings
from tests.service.chat_gateway.http_edge.edge import Edge, running_edge


async def test_the_page_has_a_strict_policy_and_needs_no_credentials() -> None:
    async with running_edge(console=ConsoleFiles.read(["https://login.example"])) as edge:
        for path in ("/console", "/console/", "/console/index.html"):
            page = await edge.client.get(path)
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        policy = dict(one.split(" ", 1) for one in page.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["connect-src"] == "'self' https://login.example"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["referrer-policy"] == "no-referrer"


async def test_a_file_is_sent_once_and_then_known() -> None:
    async with running_edge(console=ConsoleFiles.read()) as edge:
        first = await edge.client.get("/console/app.js")
        assert first.headers["content-type"] == "text/javascript; charset=utf-8"
        assert first.headers["cache-control"] == "no-cache"
        head = await edge.client.head("/console/app.js")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(first.content))
        for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
            again = await edge.client.get("/console/app.js", headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert (await edge.client.get("/console/app.js", headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/console/../app.py",
        "/console/%2e%2e/files.py",
        "/console/vendor",
        "/console/vendor/",
        "/console//app.js",
        "/consoles",
    ],
)
async def test_nothing_else_is_there(path: str) -> None:
    async with running_edge(console=ConsoleFiles.read()) as edge:
        answer = await edge.client.get(edge.client.base_url.copy_with(raw_path=path.encode()))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route_not_found")


async def test_it_is_only_read() -> None:
    async with running_edge(console=ConsoleFiles.read()) as edge:
        answer = await edge.client.post("/console", json={})
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_a_gateway_without_a_console_has_no_such_path(edge: Edge) -> None:
    assert (await edge.client.get("/console")).status_code == 404


async def test_callers_learn_where_grpc_is(edge: Edge) -> None:
    async def where(edge: Edge) -> tuple[object, object]:
        auth = (await edge.client.get("/v1/auth")).json()
        return auth["grpc_target"], auth["grpc_port"]

    assert await where(edge) == (None, None)
    async with running_edge(HttpSettings(grpc_target="api.example:443", grpc_port=50051)) as named:
        assert await where(named) == ("api.example:443", 50051)
