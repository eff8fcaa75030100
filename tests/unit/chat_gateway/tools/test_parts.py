"""Names, descriptions and schemas of tools, secrets and their removal, clients that are kept: each by itself."""

import asyncio
import base64
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_gateway.model.tool_names import MAX_NAME, unique_names
from chat_gateway.model.tools import ToolOutcome, ToolResult
from chat_gateway.tools.clients import Clients
from chat_gateway.tools.offered import MAX_DESCRIPTION, MAX_LISTED, OfferedTool, offer
from chat_gateway.tools.results import finish
from chat_gateway.tools.secrets import MAX_SECRET_BYTES, Redaction, SecretFiles, SecretUnavailable
from chat_gateway.tools.server import ServerUnavailable

ANY: Mapping[str, Any] = {"type": "object"}
SERVERS = st.sampled_from(["a", "b", "a-b"])
NAMES = st.text(alphabet="ab_-. é__", min_size=1, max_size=70)


@given(st.lists(st.tuples(SERVERS, NAMES), unique=True, max_size=12), st.randoms())
def test_names_are_valid_unique_and_do_not_depend_on_the_order(tools: list[tuple[str, str]], random: Any) -> None:
    names = unique_names(tools)
    assert len(set(names)) == len(tools)
    for name in names:
        assert 0 < len(name) <= MAX_NAME
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
    shuffled = list(tools)
    random.shuffle(shuffled)
    assert dict(zip(shuffled, unique_names(shuffled), strict=True)) == dict(zip(tools, names, strict=True))


def test_names_stay_as_they_are_unless_they_collide() -> None:
    tools = [("crm", "search"), ("wiki", "search"), ("wiki", "read.page"), ("crm", "find")]
    assert unique_names(tools) == ["crm__search", "wiki__search", "read_page", "find"]
    assert unique_names([("crm", "find")], frozenset({"find"})) == ["crm__find"]


def tool(name: str = "t", description: str = "", parameters: Any = ANY) -> OfferedTool:
    return OfferedTool(name, description, parameters)


def test_hostile_descriptions_become_plain_text_within_a_bound() -> None:
    text = "Adds\x1b[31m\x00 two\u202e numbers\u200b.\U000e0041\nAnd\tmore" + "x" * 1_000_000
    described = offer([tool(description=text)], str).tools[0].description
    assert described.startswith("Adds[31m two numbers.\nAnd\tmore")
    assert len(described) == MAX_DESCRIPTION


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": ["object", "null"]},
        nested(5000),
        {"type": "object", "description": "x" * 100_000},
        {"type": "object", "default": float("nan")},
        [],
        None,
    ],
)
def test_a_schema_that_can_not_be_a_tool_s_becomes_that_of_any_object(schema: Any) -> None:
    assert offer([tool(parameters=schema)], str).tools[0].parameters == {"type": "object", "properties": {}}


def test_ten_thousand_tools_and_duplicates_are_bounded() -> None:
    many = offer((tool(f"t{number}") for number in range(MAX_LISTED + 5)), str)
    assert (len(many.tools), many.left_out) == (MAX_LISTED, 5)
    assert offer([tool("same", "first"), tool("same", "second")], str).tools == (
        tool("same", "first", {"type": "object", "properties": {}}),
    )
    large = offer((tool(f"t{number}", "x" * 4000) for number in range(2000)), str)
    assert large.left_out > 0
    assert sum(len(one.description) for one in large.tools) <= 4 * 1024 * 1024


SECRET = 's3cr"et/+&<token>~' + "0123456789"


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        json.dumps({"token": SECRET}),
        html.escape(SECRET),
        SECRET.encode().hex(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        base64.b64encode(b"user:" + SECRET.encode()).decode(),
        base64.b64encode(b"me:" + SECRET.encode() + b"\n").decode(),
        base64.b64encode(b"a:" + SECRET.encode() + b"!!").decode(),
    ],
)
def test_secrets_are_removed_in_whatever_form_they_come_back(shown: str) -> None:
    cleaned = finish(ToolResult(f"before {shown} after"), Redaction([SECRET]), 10_000).text
    assert "[secret]" in cleaned
    for form in (SECRET, quote(SECRET, safe=""), SECRET.encode().hex(), "0123456789"):
        assert form not in cleaned
    core = base64.b64encode(SECRET.encode()).decode()[4:-8]
    assert core not in cleaned


def test_a_secret_is_removed_before_a_result_is_cut() -> None:
    result = finish(ToolResult("x" * 870 + SECRET * 10, ToolOutcome.ERROR), Redaction([SECRET]), 1000)
    assert SECRET[:6] not in result.text
    assert result.outcome is ToolOutcome.ERROR


@given(st.text(max_size=400), st.integers(200, 600))
def test_results_are_within_their_bound_and_can_be_stored(text: str, limit: int) -> None:
    assert 0 < len(finish(ToolResult(text), Redaction(), limit).text.encode()) <= limit
    finish(ToolResult("\ud800\0"), Redaction(), limit).text.encode()


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    (tmp_path / "default").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "default" / "token").write_text("first-value\n")
    (tmp_path / "other" / "token").write_text("of-another-project")
    return tmp_path


def test_secrets_are_read_again_when_they_are_swapped(secrets: Path) -> None:
    """As Kubernetes does it: names are links through `..data`, which is replaced at once."""
    project = secrets / "mounted"
    for number in ("1", "2"):
        (project / f"..{number}").mkdir(parents=True)
        (project / f"..{number}" / "token").write_text(f"value-{number}")
    (project / "..data").symlink_to("..1")
    (project / "token").symlink_to("..data/token")
    files = SecretFiles(str(secrets))
    assert files.read("mounted", "token") == "value-1"
    (project / "..new").symlink_to("..2")
    os.replace(project / "..new", project / "..data")
    assert files.read("mounted", "token") == "value-2"
    (project / "..data" / "token").write_text("value-3!")
    assert files.read("mounted", "token") == "value-3!"


@pytest.mark.parametrize(
    ("project", "name"),
    [
        ("default", "../other/token"),
        ("default", "..data"),
        ("default", "a/../../other/token"),
        ("default", ""),
        ("default", "."),
        ("default", "/etc/passwd"),
        ("default", "a..b"),
        ("default", "missing"),
        ("..", "token"),
        ("", "token"),
        ("default", "folder"),
        ("default", "pipe"),
        ("default", "large"),
        ("default", "short"),
        ("default", "lines"),
        ("default", "binary"),
    ],
)
def test_what_is_no_secret_of_the_project_is_refused(secrets: Path, project: str, name: str) -> None:
    (secrets / "default" / "folder").mkdir()
    os.mkfifo(secrets / "default" / "pipe")
    (secrets / "default" / "large").write_text("x" * (MAX_SECRET_BYTES + 1))
    (secrets / "default" / "short").write_text("abc")
    (secrets / "default" / "lines").write_text("one-line\r\nHost: other")
    (secrets / "default" / "binary").write_bytes(b"\xff\xfe\xfd\xfc")
    with pytest.raises(SecretUnavailable) as refused:
        SecretFiles(str(secrets)).read(project, name)
    assert "Host: other" not in str(refused.value)


def test_without_a_directory_there_are_no_secrets() -> None:
    with pytest.raises(SecretUnavailable):
        SecretFiles("").read("default", "token")


class Client:
    """A client that only closes."""

    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


async def test_clients_that_are_used_keep_their_places() -> None:
    now = 0.0
    clients = Clients(2, 60, clock=lambda: now)
    made: dict[str, Client] = {}

    def make(name: str) -> Any:
        made[name] = Client()
        return made[name]

    async with clients.use(("a",), lambda: make("a")), clients.use(("b",), lambda: make("b")):
        with pytest.raises(ServerUnavailable):
            async with clients.use(("c",), lambda: make("c")):
                pass
    async with clients.use(("a",), lambda: make("a2")) as first:
        assert first is made["a"]
        async with clients.use(("c",), lambda: make("c")):
            pass
    await asyncio.sleep(0)
    assert (made["a"].closed, made["b"].closed, len(clients)) == (False, True, 2)
    now = 61.0
    clients.close_idle()
    await clients.close()
    assert all(client.closed for client in made.values())
    assert len(clients) == 0
