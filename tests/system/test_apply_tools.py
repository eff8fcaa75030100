"""`parley agents apply` and `export` with tool servers, and `parley tools`: the command against a running system."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers.command import Run, command
from tests.servers.mock_model import MODEL
from tests.servers.system import PROVIDER, System

CONFIG = f"model: {{provider: {PROVIDER}, name: {MODEL}}}\n"
GITHUB = """\
kind: tool_server
id: github
mcp:
  url: https://mcp.example/mcp
  headers: {X-Team: cx}
auth: {bearer: {secret: github-token}}  # a file of the gateway
"""
CRM = "http:\n  base_url: https://crm.example\n  openapi_file: crm.json\n"
DOCUMENT = {"openapi": "3.1.0", "paths": {"/customers": {"get": {"operationId": "list_customers"}}}}
# Alphabetically, each comes before what it names.
ASKS = CONFIG + "tools:\n- agent: {agent_id: zz-helper, description: Helps.}\n- mcp: github\n"
HELPS = (
    CONFIG
    + "tools:\n"
    + "- mcp: {tool_server: github, allow: [search], approval: [search]}\n"
    + "- http: {tool_server: crm, approval: always, required: true}\n"
    + "tool_policy: {max_steps: 4, call_timeout: 10s}\n"
)


@pytest.fixture
def http(parley_system: System) -> Iterator[httpx.Client]:
    with parley_system.client() as client:
        yield client
        for collection in ("agents", "tool_servers"):
            for one in client.get(f"/v1/{collection}?page_size=1000").json()["data"]:
                client.delete(f"/v1/{collection}/{one['id']}")


@pytest.fixture
def run(parley_system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command(monkeypatch, capsys, {"PARLEY_URL": parley_system.http_url})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "github.yaml").write_text(GITHUB)
    (folder / "crm.yaml").write_text(CRM)
    (folder / "crm.json").write_text(json.dumps(DOCUMENT))
    (folder / "asks.yaml").write_text(ASKS)
    (folder / "zz-helper.yaml").write_text(HELPS)
    return folder


def test_agents_come_with_their_tool_servers_and_go_with_them(http: httpx.Client, run: Run, folder: Path) -> None:
    code, out, err = run("agents", "apply", "-f", str(folder))
    assert (code, err) == (0, "")
    done = [line.split(" (")[0] for line in out.splitlines() if line.startswith("created")]
    assert done == ["created tool server crm", "created tool server github", "created zz-helper", "created asks"]
    assert http.get("/v1/tool_servers/crm").json()["http"]["openapi"] == json.dumps(DOCUMENT, separators=(",", ":"))
    tools = http.get("/v1/agents/asks").json()["tools"]
    assert tools == [
        {"agent": {"agent_id": "zz-helper", "description": "Helps."}},
        {"mcp": {"tool_server": "github"}},
    ]
    code, out, _ = run("agents", "apply", "-f", str(folder))
    assert (code, out.splitlines()) == (0, ["Plan: 0 to create, 0 to update, 0 to delete, 4 unchanged."])
    code, out, _ = run("agents", "apply", "-f", str(folder), "-o", "json", "--dry-run")
    plan = json.loads(out)
    assert [one["id"] for one in plan["tool_servers"]] == ["crm", "github"]
    assert [one["id"] for one in plan["agents"]] == ["zz-helper", "asks"]
    for path in folder.iterdir():
        path.unlink()
    code, out, err = run("agents", "apply", "-f", str(folder), "--prune", "--yes")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("deleted")][-2:] == [
        "deleted tool server crm",
        "deleted tool server github",
    ]
    assert http.get("/v1/tool_servers").json()["data"] == []


def test_an_export_is_what_apply_takes(http: httpx.Client, run: Run, folder: Path, tmp_path: Path) -> None:
    assert run("agents", "apply", "-f", str(folder))[0] == 0
    out = tmp_path / "out"
    assert run("agents", "export", "-d", str(out))[0] == 0
    assert {str(path.relative_to(out)) for path in out.rglob("*.yaml")} == {
        "asks.yaml",
        "zz-helper.yaml",
        "tool_servers/crm.yaml",
        "tool_servers/github.yaml",
    }
    assert "kind: tool_server" in (out / "tool_servers/github.yaml").read_text()
    assert run("agents", "apply", "-f", str(out))[1].splitlines()[-1].endswith("4 unchanged.")
    before = {path: path.read_text() for path in folder.iterdir()}
    code, text, err = run("agents", "export", "-d", str(folder))
    assert (code, err) == (0, "")
    assert "updated" not in text
    assert {path: path.read_text() for path in folder.iterdir()} == before


def test_a_call_is_turned_round_in_one_apply(http: httpx.Client, run: Run, folder: Path) -> None:
    assert run("agents", "apply", "-f", str(folder))[0] == 0
    (folder / "asks.yaml").write_text(CONFIG)
    (folder / "zz-helper.yaml").write_text(CONFIG + "tools:\n- agent: {agent_id: asks, description: Asks.}\n")
    code, _, err = run("agents", "apply", "-f", str(folder))
    assert (code, err) == (0, "")
    assert http.get("/v1/agents/zz-helper").json()["tools"][0]["agent"]["agent_id"] == "asks"


def test_problems_come_with_their_lines(run: Run, folder: Path, http: httpx.Client) -> None:
    (folder / "github.yaml").write_text("kind: tool_server\nmcp: {url: 'ftp://x'}\nauth: {bearer: {secret: /etc/x}}\n")
    (folder / "crm.yaml").write_text("http: {base_url: https://crm.example, openapi_file: none.json}\n")
    (folder / "asks.yaml").write_text(
        CONFIG + "tools:\n- agent: {agent_id: zz-helper, description: a}\n- mcp: nothing\n"
    )
    (folder / "zz-helper.yaml").write_text(CONFIG + "tools:\n- agent: {agent_id: asks, description: a}\n- mcp: crm\n")
    code, _, err = run("agents", "apply", "-f", str(folder))
    assert code == 1
    for wanted in (
        "github.yaml:2: mcp.url:",
        "github.yaml:3: auth.bearer.secret:",
        "crm.yaml:1: http.openapi_file: can't be read",
        "asks.yaml:4: tools[1].mcp.tool_server: there is no tool server 'nothing'",
        "zz-helper.yaml:4: tools[1].mcp.tool_server: there is no tool server 'crm'",
    ):
        assert wanted in err, err
    assert http.get("/v1/tool_servers").json()["data"] == []
    for name, callee in (("asks", "zz-helper"), ("zz-helper", "asks")):
        (folder / f"{name}.yaml").write_text(CONFIG + f"tools:\n- agent: {{agent_id: {callee}, description: a}}\n")
    (folder / "crm.yaml").unlink()
    (folder / "github.yaml").unlink()
    code, _, err = run("agents", "apply", "-f", str(folder))
    assert code == 1
    assert err.count("agents must not call each other in a circle") == 2


def test_tools_by_themselves(run: Run, folder: Path, http: httpx.Client) -> None:
    assert run("tools", "list")[1].strip() == "no tool servers"
    code, out, _ = run("tools", "apply", "-f", str(folder), "--dry-run")
    assert (code, http.get("/v1/tool_servers").json()["data"]) == (0, [])
    code, out, err = run("tools", "apply", "-f", str(folder), "--comment", "why")
    assert (code, err) == (0, "")
    assert "created tool server github" in out
    assert http.get("/v1/agents").json()["data"] == []
    assert "github" in run("tools", "list", "--filter", "kind = mcp")[1]
    assert json.loads(run("tools", "get", "github", "--json")[1])["auth"] == {"bearer": {"secret": "github-token"}}
    code, _, err = run("tools", "test", "github")
    assert (code, "github-token" in err) == (1, True)  # the secret's name: it is not there
    (folder / "plain.yaml").write_text(CRM)
    assert run("tools", "apply", "-f", str(folder))[0] == 0
    code, out, err = run("tools", "test", "plain")
    assert (code, err, "list_customers" in out) == (0, "", True)
    assert run("tools", "test", "nothing")[0] == 1
    (folder / "plain.yaml").unlink()
    assert run("agents", "apply", "-f", str(folder))[0] == 0
    code, _, err = run("tools", "delete", "github")
    assert (code, "tool_server_in_use" in err, "asks, zz-helper" in err) == (1, True, True)
    for agent in ("asks", "zz-helper"):
        http.delete(f"/v1/agents/{agent}")
    assert run("tools", "delete", "github")[0] == 0
