"""What a tool server may say: URLs, headers, names of secrets, calls, OpenAPI documents."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from config_svc.model.json_form import decoded, encoded
from config_svc.model.tool_server import HttpCall, HttpService, McpServer, ToolServer, ToolServerSpec, differences
from config_svc.model.tool_server_audit import audited
from config_svc.model.tool_server_auth import BearerAuth, HeaderAuth, OauthClientCredentials, ToolServerAuth
from config_svc.tool_servers.openapi_document import MAX_OPERATIONS, openapi_problems
from servicekit.errors import Violations

URL = "https://mcp.example/mcp"
CALL = HttpCall("get", "Gets.", "GET", "/a")


def broken(spec: ToolServerSpec) -> set[str]:
    found = Violations()
    spec.check(found, "t")
    return found.fields()


@pytest.mark.parametrize("url", [URL, "http://[::1]:8080/a?b=c", "https://x", "HTTPS://x/%20"])
def test_urls(url: str) -> None:
    assert broken(ToolServerSpec(mcp=McpServer(url))) == set()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x",
        "x",
        "//x",
        "http://",
        "https://u:p@x/",
        "https://@x/",
        "https://x/#a",
        "https://x/#",
        "https://x/ b",
        "https://x:0/",
        "https://x:99999/",
        "https://x\\y/",
        "https://[::1/",
        "https://ä/",
        "https://x/" + "a" * 2048,
        "file:///etc/passwd",
        "https://x/\0",
    ],
)
def test_what_is_no_url(url: str) -> None:
    assert broken(ToolServerSpec(mcp=McpServer(url))) == {"t.mcp.url"}


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"X-Team": "cx", "x_a": ""}, set()),
        ({"Authorization": "x"}, {"t.mcp.headers"}),
        ({"authorization": "x"}, {"t.mcp.headers"}),
        ({"Host": "x"}, {"t.mcp.headers"}),
        ({"Mcp-Session-Id": "x"}, {"t.mcp.headers"}),
        ({"X-A": "1", "x-a": "2"}, {"t.mcp.headers"}),
        ({"a b": "x"}, {"t.mcp.headers"}),
        ({"": "x"}, {"t.mcp.headers"}),
        ({"X": "a\r\nb: c"}, {"t.mcp.headers.X"}),
        ({"X": "x" * 1025}, {"t.mcp.headers.X"}),
        ({f"X-{n}": "x" for n in range(33)}, {"t.mcp.headers"}),
    ],
)
def test_headers(headers: dict[str, str], fields: set[str]) -> None:
    assert broken(ToolServerSpec(mcp=McpServer(URL, headers))) == fields


@pytest.mark.parametrize(
    ("auth", "fields"),
    [
        (ToolServerAuth(bearer=BearerAuth("a.b_c-D9")), set()),
        (ToolServerAuth(bearer=BearerAuth("a" * 128)), set()),
        (ToolServerAuth(bearer=BearerAuth("")), {"t.auth.bearer.secret"}),
        (ToolServerAuth(bearer=BearerAuth("../x")), {"t.auth.bearer.secret"}),
        (ToolServerAuth(bearer=BearerAuth("a/b")), {"t.auth.bearer.secret"}),
        (ToolServerAuth(bearer=BearerAuth(".a")), {"t.auth.bearer.secret"}),
        (ToolServerAuth(bearer=BearerAuth("a\n")), {"t.auth.bearer.secret"}),
        (ToolServerAuth(bearer=BearerAuth("a" * 129)), {"t.auth.bearer.secret"}),
        (ToolServerAuth(header=HeaderAuth("X-Key", "k")), set()),
        (ToolServerAuth(header=HeaderAuth("x-team", "k")), {"t.auth.header.name"}),
        (ToolServerAuth(header=HeaderAuth("Content-Length", "k")), {"t.auth.header.name"}),
        (
            ToolServerAuth(oauth=OauthClientCredentials("x", "", "", ("a b",) * 33, "y")),
            {
                "t.auth.oauth.token_url",
                "t.auth.oauth.client_id",
                "t.auth.oauth.client_secret",
                "t.auth.oauth.scopes",
                *(f"t.auth.oauth.scopes[{n}]" for n in range(32)),
                "t.auth.oauth.resource",
            },
        ),
    ],
)
def test_auth(auth: ToolServerAuth, fields: set[str]) -> None:
    assert broken(ToolServerSpec(mcp=McpServer(URL, {"X-Team": "cx"}), auth=auth)) == fields


PLACES: dict[str, Any] = {"type": "object", "properties": {"id": {}, "b": {}}}


@pytest.mark.parametrize(
    ("call", "fields"),
    [
        (CALL, set()),
        (replace(CALL, path="/a/{id}/{b}", parameters=PLACES), set()),
        (replace(CALL, path="/a/{id}"), {"path"}),
        (replace(CALL, path="/a/{c}", parameters=PLACES), {"path"}),
        (replace(CALL, path="/a/{id", parameters=PLACES), {"path"}),
        (replace(CALL, path="/a}"), {"path"}),
        (replace(CALL, path="a"), {"path"}),
        (replace(CALL, path="/a?b"), {"path"}),
        (replace(CALL, path="/a#b"), {"path"}),
        (replace(CALL, path="/a b"), {"path"}),
        (replace(CALL, path="/a/../b"), {"path"}),
        (replace(CALL, path="/" + "a" * 2048), {"path"}),
        (replace(CALL, method="get"), {"method"}),
        (replace(CALL, name="a.b", description=""), {"name", "description"}),
        (replace(CALL, parameters={"description": "x" * 65 * 1024}), {"parameters"}),
    ],
)
def test_calls(call: HttpCall, fields: set[str]) -> None:
    spec = ToolServerSpec(http=HttpService("https://x", calls=(call,)))
    assert broken(spec) == {f"t.http.calls[0].{one}" for one in fields}


def test_one_of_two_and_bounds() -> None:
    assert broken(ToolServerSpec()) == {"t.mcp"}
    assert broken(ToolServerSpec(mcp=McpServer(URL), http=HttpService("https://x", openapi="x"))) >= {"t.mcp"}
    assert broken(ToolServerSpec(http=HttpService("https://x"))) == {"t.http"}
    assert broken(ToolServerSpec(http=HttpService("https://x", openapi="x", calls=(CALL,)))) == {"t.http"}
    same = ToolServerSpec(http=HttpService("https://x", calls=(CALL, CALL)))
    assert broken(same) == {"t.http.calls[1].name"}
    many = tuple(replace(CALL, name=f"c{n}") for n in range(129))
    assert broken(ToolServerSpec(http=HttpService("https://x", calls=many))) == {"t.http.calls"}
    large = tuple(replace(CALL, name=f"c{n}", parameters={"description": "x" * 60_000}) for n in range(9))
    assert broken(ToolServerSpec(http=HttpService("https://x", calls=large))) == {"t.http.calls"}
    assert broken(ToolServerSpec(mcp=McpServer(URL), display_name="x" * 201, labels={"No": ""})) == {
        "t.display_name",
        "t.labels",
    }


def document(**fields: Any) -> str:
    whole = {"openapi": "3.1.0", "paths": {"/a": {"get": {"operationId": "a"}, "parameters": []}}, **fields}
    return json.dumps({name: value for name, value in whole.items() if value is not None})


def operations(count: int) -> dict[str, Any]:
    return {f"/{n}": {"post": {"operationId": f"o{n}"}} for n in range(count)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (document(), ""),
        (document(openapi="3.0.3", paths=operations(MAX_OPERATIONS)), ""),
        (
            document(
                components={"schemas": {"A/B": {"$ref": "#/paths/~1a"}, "C": {"$ref": "#/components/schemas/A~1B"}}}
            ),
            "",
        ),
        ("openapi: 3.1.0", "must be JSON"),
        ("[]", "must be a JSON object"),
        ('{"openapi": NaN}', "must be JSON"),
        ("[" * 100_000, "must not nest deeper"),
        ('{"a":' * 70 + "1" + "}" * 70, "must not nest deeper than 64"),
        (json.dumps({"a": [0] * 100_001}), "must hold at most 100000 values"),
        ("x" * (1024 * 1024 + 1), "must have at most 1048576 bytes"),
        (document(openapi="2.0"), "OpenAPI 3"),
        (document(openapi=None), "OpenAPI 3"),
        (document(paths=None), "`paths` must be an object"),
        (document(paths={"/a": []}), "'/a' must be an object"),
        (document(paths={"/a": {"get": []}}), "get must be an object"),
        (document(paths={"/a": {"get": {}}}), "at least one operation"),
        (document(paths={"/a": {"get": {"operationId": 1}}}), "must be text"),
        (document(paths={"/a": {"get": {"operationId": "a"}, "put": {"operationId": "a"}}}), "is a duplicate"),
        (document(paths=operations(MAX_OPERATIONS + 1)), "at most 256 operations"),
        (document(x={"$ref": "https://evil.example/x.json"}), "within this document"),
        (document(x={"$ref": "other.json#/a"}), "within this document"),
        (document(x=[{"$ref": "file:///etc/passwd"}]), "within this document"),
        (document(x={"$ref": "#/nothing"}), "refers to nowhere"),
    ],
)
def test_openapi_documents(text: str, words: str) -> None:
    problems = openapi_problems(text)
    assert bool(problems) == bool(words)
    assert words in "; ".join(problems)


def test_problems_of_a_document_are_bounded() -> None:
    assert len(openapi_problems(document(x=[{"$ref": "x"}] * 1000))) == 20


def test_the_worst_document_costs_little() -> None:
    start = time.process_time()
    openapi_problems(json.dumps({"a": [[]] * 99_000, "$ref": "#/a/0"}))
    openapi_problems(document(paths={"/" * n: {"get": {"operationId": "a"}} for n in range(1400)}))
    assert time.process_time() - start < 5


SPEC = ToolServerSpec(
    "One",
    McpServer(f"{URL}?token=planted", {"X-A": "planted"}),
    None,
    ToolServerAuth(oauth=OauthClientCredentials("https://idp/?k=planted", "client", "the-secret", ("a",))),
    {"team": "cx"},
)


def test_the_stored_form_comes_back() -> None:
    http = ToolServerSpec(http=HttpService("https://x", {"X": ""}, "", (replace(CALL, parameters=PLACES),)))
    for spec in (SPEC, http, ToolServerSpec()):
        assert decoded(ToolServerSpec, json.loads(json.dumps(encoded(spec)))) == spec
    assert encoded(ToolServerSpec(mcp=McpServer(URL))) == {"mcp": {"url": URL}}
    assert decoded(ToolServerSpec, {"later": 1, "mcp": {"url": URL, "later": 1}}) == ToolServerSpec(mcp=McpServer(URL))


def test_what_the_audit_log_shows() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    state = audited(ToolServer("p", "one", "u", SPEC, 1, now, now))
    assert "planted" not in str(state)
    assert state["mcp"] == {"url": f"{URL}?…", "headers": ["X-A"]}
    assert state["auth"] == {
        "oauth": {"token_url": "https://idp/?…", "client_id": "client", "client_secret": "the-secret", "scopes": ["a"]}
    }


def test_differences_are_paths() -> None:
    other = replace(SPEC, mcp=McpServer("https://y", {"X-A": "planted"}), auth=ToolServerAuth(), labels={})
    assert differences(SPEC, other) == ("mcp.url", "auth.oauth", "labels")
    true, one = (
        ToolServerSpec(http=HttpService("https://x", calls=(replace(CALL, parameters={"default": value}),)))
        for value in (True, 1)
    )
    assert differences(true, one) == ("http.calls",)
    assert differences(SPEC, SPEC) == ()
