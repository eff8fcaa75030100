"""`parley agents apply`, `export`, `diff` and so on: the command against a running system."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from parley_cli.api import Api
from parley_cli.declared import plan as planning
from tests.servers.command import Run, command
from tests.servers.mock_model import MODEL
from tests.servers.system import PROVIDER, System

SUPPORT = f"""\
# Who answers customers.
name: Support
instructions: |
  You answer for {{{{company}}}}.
  Be kind.
parameters: {{company: Acme}}
model: {{provider: {PROVIDER}, name: {MODEL}}}  # the cheap one
"""
SALES = f"id: sales\nmodel:\n  provider: {PROVIDER}\n  name: {MODEL}\n"


@pytest.fixture
def http(parley_system: System) -> Iterator[httpx.Client]:
    with parley_system.client() as client:
        yield client
        for agent in client.get("/v1/agents?page_size=1000").json()["data"]:
            client.delete(f"/v1/agents/{agent['id']}")


@pytest.fixture
def run(parley_system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command(monkeypatch, capsys, {"PARLEY_URL": parley_system.http_url})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "support.yaml").write_text(SUPPORT)
    (folder / "sales.yaml").write_text(SALES)
    return folder


def test_a_folder_is_applied_once_and_then_unchanged(http: httpx.Client, run: Run, folder: Path) -> None:
    code, out, err = run("agents", "apply", "-f", str(folder), "--dry-run")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"+ create sales    ({folder}/sales.yaml)",
        f"+ create support  ({folder}/support.yaml)",
        "Plan: 2 to create, 0 to update, 0 to delete, 0 unchanged.",
    ]
    assert http.get("/v1/agents").json()["data"] == []
    assert run("agents", "apply", "-f", str(folder), "--dry-run", "--exit-code")[0] == 3

    code, out, err = run("agents", "apply", "-f", str(folder), "--comment", "first")
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == ["created sales (revision 1)", "created support (revision 1)"]
    support = http.get("/v1/agents/support").json()
    assert support["labels"] == {"managed-by": "parley-apply"}
    assert support["instructions"] == "You answer for {{company}}.\nBe kind.\n"
    assert http.get("/v1/agents/support/revisions").json()["data"][0]["comment"] == "first"

    nothing = "Plan: 0 to create, 0 to update, 0 to delete, 2 unchanged.\n"
    assert run("agents", "apply", "-f", str(folder), "--dry-run", "--exit-code") == (0, nothing, "")
    assert run("agents", "apply", "-f", str(folder)) == (0, nothing, "")
    assert http.get("/v1/agents/support").json() == support


def test_an_update_is_shown_field_by_field(http: httpx.Client, run: Run, folder: Path) -> None:
    run("agents", "apply", "-f", str(folder))
    path = folder / "support.yaml"
    path.write_text(SUPPORT.replace("Be kind", "Be brief").replace("Acme", "Bolt") + "labels: {team: cx}\n")
    code, out, _ = run("agents", "apply", "-f", str(folder))
    assert code == 0
    assert out.splitlines() == [
        f"~ update support  ({path})",
        "    instructions:",
        "      @@ -1,2 +1,2 @@",
        "       You answer for {{company}}.",
        "      -Be kind.",
        "      +Be brief.",
        '    parameters.company: "Acme" -> "Bolt"',
        '    labels.team: (not set) -> "cx"',
        "Plan: 0 to create, 1 to update, 0 to delete, 1 unchanged.",
        "updated support (revision 2)",
    ]
    path.write_text(SUPPORT)
    code, out, _ = run("agents", "apply", "-f", str(folder), "--dry-run", "-o", "json")
    plan = json.loads(out)
    assert [plan[kind] for kind in ("create", "update", "unchanged", "delete")] == [0, 1, 1, 0]
    change = {"path": "parameters.company", "from": "Bolt", "to": "Acme"}
    assert change in next(one for one in plan["agents"] if one["id"] == "support")["changes"]
    code, out, _ = run("agents", "apply", "-f", str(folder), "-o", "json")
    outcomes = {one["id"]: one.get("outcome") for one in json.loads(out)["agents"]}
    assert outcomes == {"support": "updated (revision 3)", "sales": None}


def test_all_problems_of_all_files_come_at_once_and_nothing_changes(http: httpx.Client, run: Run, folder: Path) -> None:
    (folder / "support.yaml").write_text(
        "name: 7\nmodel:\n  provider: nowhere\n  name: x\n  topp: 1\n  temperature: 9\n"
        "instructions: Hi {{nobody}}\nlabels: {managed-by: me, Bad: x}\n"
    )
    (folder / "broken.yaml").write_text("id: [\n")
    (folder / "empty.yaml").write_text("parameters:\n  since: 2026-01-01\n")
    code, out, err = run("agents", "apply", "-f", str(folder), "--prune", "--yes")
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert lines[-1] == f"parley: {len(lines) - 1} problems in 3 files: nothing was changed"
    where = [line.removeprefix(f"{folder}/").split(": ")[:2] for line in lines[:-1]]
    assert where == [
        ["broken.yaml:2", "is not YAML"],
        ["empty.yaml", "model.name"],
        ["empty.yaml", "model.provider"],
        ["empty.yaml:2", "parameters.since"],
        ["support.yaml:1", "name"],
        ["support.yaml:3", "model.provider"],
        ["support.yaml:5", "model.topp"],
        ["support.yaml:6", "model.temperature"],
        ["support.yaml:7", "instructions"],
        ["support.yaml:8", "labels"],
        ["support.yaml:8", "labels.managed-by"],
    ]
    assert http.get("/v1/agents").json()["data"] == []


def test_prune_deletes_its_owners_agents_only_and_asks(
    http: httpx.Client, run: Run, folder: Path, parley_system: System, tmp_path: Path
) -> None:
    parley_system.create_agent("by-hand")
    other = tmp_path / "other"
    other.mkdir()
    (other / "theirs.yaml").write_text(SALES.replace("sales", "theirs"))
    run("agents", "apply", "-f", str(other), "--owner", "team-b")
    run("agents", "apply", "-f", str(folder))
    (folder / "sales.yaml").unlink()
    assert run("agents", "apply", "-f", str(folder))[0] == 0
    assert http.get("/v1/agents/sales").status_code == 200, "without --prune nothing goes"
    code, out, err = run("agents", "apply", "-f", str(folder), "--prune")
    assert code == 1
    assert out.splitlines()[0] == "- delete sales"
    assert "1 agent, with all sessions, would be deleted: give --yes" in err
    assert http.get("/v1/agents/sales").status_code == 200
    code, out, _ = run("agents", "apply", "-f", str(folder), "--prune", "--yes")
    assert (code, out.splitlines()[-1]) == (0, "deleted sales")
    left = {agent["id"] for agent in http.get("/v1/agents").json()["data"]}
    assert left == {"by-hand", "theirs", "support"}
    assert run("agents", "apply", "-f", str(folder / "support.yaml"), "--prune")[0] == 1


def test_what_somebody_else_changes_meanwhile_is_not_overwritten(
    http: httpx.Client, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("agents", "apply", "-f", str(folder))
    (folder / "support.yaml").write_text(SUPPORT.replace("Acme", "Bolt"))
    (folder / "sales.yaml").write_text(SALES + "name: Sales\n")
    (folder / "new.yaml").write_text(SALES.replace("sales", "new"))
    planned = planning.make_plan

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        plan = planned(*arguments, **options)
        http.patch("/v1/agents/support", json={"name": "Mine"})
        http.post("/v1/agents", json={"id": "new", "name": "Mine", "model": {"provider": PROVIDER, "name": MODEL}})
        return plan

    monkeypatch.setattr("parley_cli.commands.apply.make_plan", meanwhile)
    code, out, err = run("agents", "apply", "-f", str(folder))
    assert code == 1
    assert "updated sales (revision 2)" in out
    assert "support: was changed since the plan was made, and is left as it is (etag_mismatch)" in err
    assert "new: was changed since the plan was made" in err
    assert "2 of 3 changes failed: run apply again" in err
    assert http.get("/v1/agents/support").json()["parameters"] == {"company": "Acme"}
    monkeypatch.undo()
    code, out, _ = run("agents", "apply", "-f", str(folder))
    assert code == 0
    assert '    name: "Mine" -> "Support"' in out.splitlines()


def test_an_export_is_what_apply_takes(
    http: httpx.Client, run: Run, folder: Path, parley_system: System, tmp_path: Path
) -> None:
    run("agents", "apply", "-f", str(folder))
    assert run("agents", "export", "-d", str(folder)) == (
        0,
        f"unchanged {folder}/sales.yaml\nunchanged {folder}/support.yaml\n",
        "",
    )
    assert (folder / "support.yaml").read_text() == SUPPORT
    http.patch("/v1/agents/support", json={"parameters": {"company": "Bolt"}})
    assert f"updated {folder}/support.yaml" in run("agents", "export", "-d", str(folder))[1]
    assert (folder / "support.yaml").read_text() == SUPPORT.replace("Acme", "Bolt")

    fresh = tmp_path / "fresh"
    assert run("agents", "export", "support", "-d", str(fresh))[1] == f"wrote {fresh}/support.yaml\n"
    code, out, _ = run("agents", "apply", "-f", str(fresh), "--dry-run", "--exit-code")
    assert (code, out) == (0, "Plan: 0 to create, 0 to update, 0 to delete, 1 unchanged.\n")
    code, out, _ = run("agents", "export")
    assert out.count("---\n") == 1
    assert "managed-by" not in out
    code, out, _ = run("agents", "export", "-o", "json", "sales")
    assert [one["id"] for one in json.loads(out)] == ["sales"]
    assert run("agents", "export", "nobody")[0] == 1


def test_a_new_version_of_the_template_changes_nothing_unless_asked_for(
    http: httpx.Client, run: Run, folder: Path
) -> None:
    (folder / "support.yaml").write_text(SUPPORT)
    run("agents", "apply", "-f", str(folder))
    kept = http.patch("/v1/agents/support", json={"template_version": "1.1.0"}).json()["template_version"]
    assert "1 unchanged" in run("agents", "apply", "-f", str(folder / "support.yaml"))[1]
    assert http.get("/v1/agents/support").json()["template_version"] == kept
    (folder / "support.yaml").write_text(SUPPORT + "template_version: 9.9.9\n")
    code, _, err = run("agents", "apply", "-f", str(folder))
    assert code == 1
    assert f"{folder}/support.yaml:8: template_version: template 'assistant' version 9.9.9 is not published" in err


def test_revisions_are_listed_compared_and_gone_back_to(http: httpx.Client, run: Run, folder: Path) -> None:
    run("agents", "apply", "-f", str(folder), "--comment", "first")
    http.patch("/v1/agents/support?comment=second", json={"name": "Two", "labels": {"team": "cx"}})
    listed = run("agents", "revisions", "support")[1]
    assert [line.split()[0] for line in listed.splitlines()] == ["revision", "2", "1"]
    assert "second" in listed
    assert "name, labels" in listed
    assert run("agents", "diff", "support")[1].splitlines() == [
        "support: revision 1 -> 2",
        '    name: "Support" -> "Two"',
        '    labels.team: (not set) -> "cx"',
    ]
    assert run("agents", "diff", "support", "--from", "2", "--to", "2")[1] == "support: revision 2 -> 2\n"
    assert json.loads(run("agents", "diff", "support", "--json")[1])["to_revision"] == 2
    assert run("agents", "rollback", "support", "1")[1] == "rolled back support to revision 1 (revision 3)\n"
    assert run("agents", "diff", "support", "--from", "1")[1] == "support: revision 1 -> 3\n"


def test_a_deleted_agent_comes_back_and_answers(
    http: httpx.Client, run: Run, folder: Path, parley_system: System
) -> None:
    run("agents", "apply", "-f", str(folder))
    uid = http.get("/v1/agents/support").json()["uid"]
    run("agents", "delete", "support")
    assert uid in run("agents", "list", "--deleted", "--limit", "1000")[1]
    assert uid not in run("agents", "list")[1]
    run("agents", "apply", "-f", str(folder))
    again = http.get("/v1/agents/support").json()["uid"]
    assert again != uid, "a deleted id that is created again is another agent"
    code, _, err = run("agents", "undelete", "support")
    assert code == 1
    assert "agent_already_exists" in err
    out = run("agents", "undelete", "support", "--as", "support-2", "--uid", uid)[1]
    assert out == f"undeleted support-2 (revision 1, uid {uid})\n"
    deadline = time.monotonic() + 60
    while (answer := parley_system.chat("support-2", "hi")).status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert answer.status_code == 200, answer.text
    assert parley_system.chat("support", "hi").status_code == 200


def test_many_agents_are_listed_over_their_pages(parley_system: System, http: httpx.Client) -> None:
    for number in range(3):
        parley_system.create_agent(f"a{number}")
    with Api(parley_system.http_url) as api:
        assert len(api.list_all("/v1/agents", filter="NOT labels.managed-by:*")) == 3


def test_numbers_and_what_requests_get_come_back_as_files_have_them(
    http: httpx.Client, run: Run, tmp_path: Path
) -> None:
    text = f"""\
instructions: "{{{{n}}}} {{{{big}}}} {{{{ '{{{{' }}}}n}}}}"
parameters:
  n: 14
  big: 9007199254740993
model:
  provider: {PROVIDER}
  name: {MODEL}
  extra:
    top_k: 40
    logit_bias:
      '7': -100
requests:
  store: false
  history: replace
  overridable: []
"""
    (tmp_path / "exact.yaml").write_text(text)
    assert run("agents", "apply", "-f", str(tmp_path))[0] == 0
    assert run("agents", "apply", "-f", str(tmp_path), "--dry-run", "--exit-code")[0] == 0
    agent = http.get("/v1/agents/exact").json()
    assert agent["parameters"] == {"n": 14, "big": 9007199254740993}
    assert "14.0" not in http.get("/v1/agents/exact").text
    assert agent["requests"] == {"store": False, "history": "replace", "overridable": []}
    assert run("agents", "export", "-d", str(tmp_path))[0] == 0
    assert (tmp_path / "exact.yaml").read_text() == text

    answer = http.post("/v1/chat/completions", json={"model": "exact", "messages": [{"role": "user", "content": "Hi"}]})
    assert answer.status_code == 200
    assert "x-session-id" not in answer.headers
    refused = http.post("/v1/chat/completions", json={"model": "exact", "messages": [], "temperature": 1})
    assert refused.json()["error"]["code"] == "invalid_field"
    body = {"model": "exact", "messages": [{"role": "user", "content": "Hi"}], "temperature": 1, "top_k": 41}
    error = http.post("/v1/chat/completions", json=body).json()["error"]
    assert (error["code"], error["param"]) == ("field_not_overridable", "temperature")
    assert [one["field"] for one in error["violations"]] == ["temperature", "top_k"]

    changed = http.patch("/v1/agents/exact", json={"parameters": {"n": 9007199254740995}, "requests": {"store": None}})
    assert changed.json()["parameters"] == {"n": 9007199254740995, "big": 9007199254740993}
    assert changed.json()["requests"] == {"history": "replace", "overridable": []}
    compared = http.get("/v1/agents/exact/compare").json()
    assert {"path": "parameters.n", "from": 14, "to": 9007199254740995} in compared["differences"]
    event = http.get("/v1/audit?resource=agent_configs/exact").json()["data"][0]
    assert event["after"]["parameters"] == {"n": 9007199254740995, "big": 9007199254740993}
