"""The commands against a server that answers what a test says: what is sent, what is printed, what is an error."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.api_server import Server, piece, sse

AGENT = {
    "id": "support",
    "name": "Support",
    "template_id": "assistant",
    "model": {"provider": "local", "name": "smollm2"},
    "revision": 2,
    "update_time": "2026-01-01T00:00:00Z",
}
SESSION = {"id": "s-1", "agent_id": "support", "user_id": "ada", "message_count": 2}


def test_list_follows_pages(server: Server, run) -> None:
    server.answers["GET /v1/agents?page_size=100"] = (200, {"data": [AGENT], "next_page_token": "t"})
    server.answers["GET /v1/agents?page_size=100&page_token=t"] = (200, {"data": [AGENT | {"id": "b"}]})
    code, out, err = run("agents", "list")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["id", "support", "b"]
    assert "assistant" in out


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("agents", "list"), "GET /v1/agents?page_size=100"),
        (("agents", "get", "support"), "GET /v1/agents/support"),
        (("agents", "create", "-f", "agent.yaml"), "POST /v1/agents"),
        (("agents", "update", "support", "-f", "agent.yaml"), "PATCH /v1/agents/support"),
        (("agents", "delete", "support"), "DELETE /v1/agents/support"),
        (("agents", "apply", "-f", "agent.yaml", "--dry-run"), "GET /v1/agents?page_size=100"),
        (("agents", "export", "support"), "GET /v1/agents/support"),
        (("agents", "revisions", "support"), "GET /v1/agents/support/revisions?page_size=100"),
        (("agents", "diff", "support"), "GET /v1/agents/support/compare?from_revision=0&to_revision=0"),
        (("agents", "rollback", "support", "1"), "POST /v1/agents/support:rollback"),
        (("agents", "undelete", "support"), "POST /v1/agents/support:undelete"),
        (("sessions", "list"), "GET /v1/sessions?page_size=100"),
        (("sessions", "show", "s-1"), "GET /v1/sessions/s-1"),
        (("sessions", "delete", "s-1"), "DELETE /v1/sessions/s-1"),
        (("chat", "support", "-m", "Hi"), "POST /v1/chat/completions"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_the_project_goes_along(
    server: Server, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], asked: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("agent.yaml").write_text("id: support\nname: Support\n")
    server.answers[asked] = (404, {"error": {"code": "route_not_found", "message": "enough"}})
    for project in ((), ("--project", "acme")):
        run(*arguments, *project)
    assert [one for one, _ in server.asked] == [asked, asked]
    assert server.projects == [None, "acme"]


def test_a_key_is_made_with_limits(server: Server, run) -> None:
    server.answers["POST /v1/api_keys"] = (201, {"id": "key_1", "key": "parley_sk_x"})
    run("keys", "create", "--scope", "chat")
    run("keys", "create", "--scope", "chat", "--turns-a-minute", "60", "--turns-at-once", "4")
    run("keys", "create", "--scope", "chat", "--turns-at-once", "4")
    assert [body.get("limits") for _, body in server.asked] == [
        None,
        {"requests_per_minute": 60, "concurrent_turns": 4},
        {"requests_per_minute": 0, "concurrent_turns": 4},
    ]
    code, _, err = run("keys", "create", "--scope", "chat", "--turns-a-minute", "-1")
    assert code == 2, err


def test_an_api_key_goes_along(server: Server, run, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["DELETE /v1/agents/support"] = (204, None)
    run("agents", "delete", "support")
    monkeypatch.setenv("PARLEY_API_KEY", "parley_sk_x")
    run("agents", "delete", "support")
    assert server.credentials == [None, "Bearer parley_sk_x"]


def test_list_as_json_is_json(server: Server, run) -> None:
    server.answers["GET /v1/agents?page_size=1"] = (200, {"data": [AGENT], "next_page_token": "more"})
    code, out, _ = run("agents", "list", "--limit", "1", "--json")
    assert (code, json.loads(out)) == (0, [AGENT])


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("agents", "list"), "agents"),
        (("agents", "revisions", "support"), "agents/support/revisions"),
        (("tools", "list"), "tool_servers"),
        (("keys", "list"), "api_keys"),
        (("projects", "list"), "projects"),
        (("templates", "list"), "templates"),
        (("sessions", "list", "--limit", "0"), "sessions"),
        (("audit", "--limit", "0"), "audit"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_a_list_is_whole(server: Server, run, arguments: tuple[str, ...], path: str) -> None:
    def rows(first: int, count: int) -> list[dict[str, Any]]:
        return [{"id": f"one-{number}"} for number in range(first, first + count)]

    server.answers[f"GET /v1/{path}?page_size=100"] = (200, {"data": rows(0, 100), "next_page_token": "b"})
    server.answers[f"GET /v1/{path}?page_size=100&page_token=b"] = (
        200,
        {"data": rows(100, 100), "next_page_token": "c"},
    )
    server.answers[f"GET /v1/{path}?page_size=100&page_token=c"] = (200, {"data": rows(200, 50)})
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    assert [row["id"] for row in json.loads(out)] == [f"one-{number}" for number in range(250)]


@pytest.mark.parametrize(
    ("arguments", "path", "limit"),
    [
        (("agents", "list", "--limit", "2"), "agents", 2),
        (("agents", "revisions", "support", "--limit", "2"), "agents/support/revisions", 2),
        (("tools", "list", "--limit", "2"), "tool_servers", 2),
        (("keys", "list", "--limit", "2"), "api_keys", 2),
        (("projects", "list", "--limit", "2"), "projects", 2),
        (("sessions", "list"), "sessions", 100),
        (("sessions", "show", "s-1", "--limit", "2"), "sessions/s-1/messages", 2),
        (("audit",), "audit", 100),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else None,
)
@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
def test_a_list_that_is_cut_says_so(
    server: Server, run, arguments: tuple[str, ...], path: str, limit: int, as_json: bool
) -> None:
    rows = [{"id": f"one-{number}", "role": "user", "content": "Hi"} for number in range(limit)]
    server.answers["GET /v1/sessions/s-1"] = (200, SESSION)
    server.answers[f"GET /v1/{path}?page_size={limit}"] = (200, {"data": rows, "next_page_token": "more"})
    code, out, err = run(*arguments, *(["--json"] if as_json else []))
    assert (code, err) == (
        0,
        f"parley: these are the first {limit}, there are more (--limit 0 lists all)\n",
    )
    assert "there are more" not in out
    server.answers[f"GET /v1/{path}?page_size={limit}"] = (200, {"data": rows})
    assert run(*arguments)[2] == ""


@pytest.mark.parametrize("text", ['{"id": "support", "parameters": {"n": 1}}', "id: support\nparameters: {n: 1}\n"])
def test_create_takes_yaml_and_json(server: Server, run, tmp_path: Path, text: str) -> None:
    file = tmp_path / "agent"
    file.write_text(text)
    server.answers["POST /v1/agents"] = (201, AGENT)
    assert run("agents", "create", "-f", str(file)) == (0, "created support (revision 2)\n", "")
    assert server.asked == [("POST /v1/agents", {"id": "support", "parameters": {"n": 1}})]


def test_update_sends_only_what_the_file_names(server: Server, run, tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("name: New\n")
    server.answers["PATCH /v1/agents/support"] = (200, AGENT)
    assert run("agents", "update", "support", "-f", str(file))[1] == "updated support (revision 2)\n"
    assert server.asked == [("PATCH /v1/agents/support", {"name": "New"})]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("- 1\n", "must hold one object"), ("a: [", "is neither YAML nor JSON"), (None, "No such file or directory")],
)
def test_a_bad_file_is_one_line(run, tmp_path: Path, text: str | None, complaint: str) -> None:
    file = tmp_path / "agent.yaml"
    if text is not None:
        file.write_text(text)
    code, out, err = run("agents", "create", "-f", str(file))
    assert (code, out) == (1, "")
    assert complaint in err
    assert err.count("\n") == 0


def test_delete(server: Server, run) -> None:
    server.answers["DELETE /v1/agents/support"] = (204, None)
    assert run("agents", "delete", "support") == (0, "deleted support\n", "")


def test_a_refusal_is_one_line_with_its_code(server: Server, run) -> None:
    error = {"message": "agent 'x'\ndoes not exist", "type": "not_found", "param": None, "code": "agent_not_found"}
    server.answers["GET /v1/agents/x"] = (404, {"error": error})
    assert run("agents", "get", "x") == (1, "", "parley: agent_not_found: agent 'x' does not exist")


@pytest.mark.parametrize(
    ("status", "body", "complaint"),
    [(502, b"<html>", "parley: 502: Bad Gateway"), (200, b"<html>", "is it Parley?"), (500, [], "parley: 500: ")],
)
def test_an_answer_that_is_no_answer(server: Server, run, status: int, body: Any, complaint: str) -> None:
    server.answers["GET /v1/agents/x"] = (status, body)
    code, out, err = run("agents", "get", "x")
    assert (code, out) == (1, "")
    assert complaint in err


def test_nobody_there(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_URL", "http://127.0.0.1:1")
    code, _, err = run("sessions", "list")
    assert code == 1
    assert err.startswith("parley: cannot reach http://127.0.0.1:1 (")


def test_sessions_are_filtered(server: Server, run) -> None:
    server.answers["GET /v1/sessions?page_size=100&agent_id=support&user_id=ada"] = (200, {"data": [SESSION]})
    code, out, _ = run("sessions", "list", "--agent", "support", "--user", "ada")
    assert code == 0
    assert out.splitlines()[1].split()[:4] == ["s-1", "support", "ada", "2"]


def test_session_is_shown_with_its_messages(server: Server, run) -> None:
    server.answers["GET /v1/sessions/s-1"] = (200, SESSION)
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "[red]hi[/red]"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
    ]
    server.answers["GET /v1/sessions/s-1/messages?page_size=100"] = (200, {"data": messages})
    _, out, _ = run("sessions", "show", "s-1")
    assert "user\n[red]hi[/red]\n" in out
    assert "assistant\n[calls f({})]\n" in out


def test_chat_streams_and_names_the_session(server: Server, run) -> None:
    server.answers["POST /v1/chat/completions"] = (200, sse(piece("Hel"), piece("lo"), {"choices": []}))
    assert run("chat", "hello", "--message", "hi", "--session", "s-9") == (0, "Hello\n", "session s-9\n")
    expected = {"model": "hello", "messages": [{"role": "user", "content": "hi"}], "stream": True, "session_id": "s-9"}
    assert server.asked[0][1] == expected


def test_chat_keeps_to_one_session_over_the_lines_of_its_input(
    server: Server, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["POST /v1/chat/completions"] = (200, sse(piece("ok")))
    server.answers["GET /v1/models/hello"] = (403, {"error": {"code": "scope_missing", "message": "no"}})
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n \ntwo"))
    code, out, _ = run("chat", "hello")
    assert (code, out) == (0, "ok\nok\n\n")
    assert [body.get("session_id") for _, body in server.asked if body] == [None, "s-9"]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (sse(piece("x"), {"error": {"message": "gone", "code": "peer_unavailable"}}, done=False), "peer_unavailable"),
        (sse(piece("x"), done=False), "stream_broken"),
    ],
)
def test_a_stream_that_fails_is_an_error(server: Server, run, answer: bytes, complaint: str) -> None:
    server.answers["POST /v1/chat/completions"] = (200, answer)
    code, out, err = run("chat", "hello", "-m", "hi")
    assert (code, out) == (1, "x")
    assert err.startswith(f"parley: {complaint}: ")


def test_chat_takes_its_text_as_an_argument(server: Server, run) -> None:
    server.answers["POST /v1/chat/completions"] = (200, sse(piece("ok")))
    assert run("chat", "hello", "hi there")[:2] == (0, "ok\n")
    assert server.asked[0][1]["messages"] == [{"role": "user", "content": "hi there"}]
    assert run("chat", "hello", "hi", "-m", "hi")[0] == 1


def test_chat_with_an_agent_that_is_not_there_ends_before_any_input(
    server: Server, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"message": "no agent 'nobody'", "code": "model_not_found"}
    server.answers["GET /v1/models/nobody"] = (404, {"error": error})
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    for agent in ("nobody", "nobody@3"):
        assert run("chat", agent) == (1, "", "parley: model_not_found: no agent 'nobody'")


def test_chat_shows_what_is_no_text(server: Server, run) -> None:
    def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    calls = [
        chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "look", "arguments": '{"n"'}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}, {"index": 1, "function": {"name": "go"}}]),
        chunk("tool_calls"),
    ]
    answers = [
        (sse(piece("Let me see."), *calls), 'Let me see.\n[calls look({"n": 1})]\n[calls go()]\n'),
        (sse(chunk(refusal="I can't"), chunk(refusal=" do that."), chunk("stop")), "I can't do that.\n"),
        (sse(piece("Once upon"), chunk("length")), "Once upon\n[cut at the limit]\n"),
        (sse(piece("Hm"), chunk("content_filter")), "Hm\n[stopped by the content filter]\n"),
        (sse(chunk(content=None), {"choices": None}, chunk("stop")), "\n"),
    ]
    for answer, shown in answers:
        server.answers["POST /v1/chat/completions"] = (200, answer)
        assert run("chat", "hello", "hi")[:2] == (0, shown)


def test_chat_reports_calls_that_the_gateway_makes_beside_the_answer(server: Server, run) -> None:
    def activity(event: str, **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": {}, "finish_reason": None}
        return {"choices": [choice], "parley": {"event": event, "step": 1, "name": "add", "server": "sample", **more}}

    server.answers["POST /v1/chat/completions"] = (
        200,
        sse(
            activity("tool_call_started", arguments='{"a": 1}'),
            activity("tool_call_finished", outcome="ok", duration_ms=3),
            activity("step_finished"),
            piece("It is 1."),
        ),
    )
    reported = '[calls add({"a": 1})]\n[add: ok, 3 ms]\nsession s-9\n'
    assert run("chat", "hello", "hi") == (0, "It is 1.\n", reported)


def test_a_stream_that_is_none_is_one_line(server: Server, run) -> None:
    server.answers["POST /v1/chat/completions"] = (200, b"data: [1]\n\n")
    code, _, err = run("chat", "hello", "hi")
    assert (code, err) == (1, "parley: bad_response: the stream holds what is no chunk of an answer; is it Parley?")


def test_a_refusal_is_shown_in_a_session(server: Server, run) -> None:
    server.answers["GET /v1/sessions/s-1"] = (200, SESSION)
    messages = {"data": [{"role": "assistant", "content": None, "refusal": "I can't."}]}
    server.answers["GET /v1/sessions/s-1/messages?page_size=100"] = (200, messages)
    assert "assistant\nI can't.\n" in run("sessions", "show", "s-1")[1]


def test_a_dry_run_changes_nothing_and_is_json_on_request(server: Server, run, tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("id: support\nname: Support\n")
    server.answers["POST /v1/agents?validate_only=true"] = (200, AGENT)
    server.answers["PATCH /v1/agents/support?validate_only=true"] = (200, AGENT)
    server.answers["GET /v1/agents?page_size=100"] = (200, {"data": []})
    assert run("agents", "create", "-f", str(file), "--dry-run")[1] == "support would be created\n"
    assert run("agents", "update", "support", "-f", str(file), "--dry-run")[1] == "support would be updated\n"
    assert json.loads(run("agents", "create", "-f", str(file), "--dry-run", "--json")[1]) == AGENT
    plan = json.loads(run("agents", "apply", "-f", str(file), "--dry-run", "--json")[1])
    assert [(step["id"], step["action"]) for step in plan["agents"]] == [("support", "create")]


def test_ids_stand_in_paths_as_they_are(server: Server, run) -> None:
    server.answers["GET /v1/agents/a%2Fb%20%3Fc%23%C3%A4"] = (200, AGENT)
    assert run("agents", "get", "a/b ?c#ä", "--json")[0] == 0
    for name in ("", "..", "."):
        assert run("agents", "delete", name) == (1, "", f"parley: {name!r} is not an id")


def test_ids_are_never_wrapped_where_a_program_reads_them(server: Server, run) -> None:
    long = SESSION | {"id": "s" * 128, "user_id": "u" * 256, "agent_id": "a" * 63}
    server.answers["GET /v1/sessions?page_size=100"] = (200, {"data": [long, SESSION]})
    server.answers["GET /v1/agents/support"] = (200, AGENT | {"instructions": "word " * 200 + "\nnext"})
    out = run("sessions", "list")[1]
    assert [line.split()[0] for line in out.splitlines()] == ["id", "s" * 128, "s-1"]
    assert "u" * 256 in out
    assert len(run("agents", "get", "support")[1].splitlines()) == len(AGENT) + 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 2027-01-31\n", "put it into quotes"),
        ("a: .nan\n", "is neither YAML nor JSON"),
        ("[" * 5000, "parley: "),
        ("a: 2027-99-99\n", "parley: "),
        (b"a: \xff\n", "is not UTF-8"),
    ],
)
def test_a_file_that_json_has_not_is_one_line(run, tmp_path: Path, text: str | bytes, complaint: str) -> None:
    file = tmp_path / "agent.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out, err = run("agents", "create", "-f", str(file))
    assert (code, out, err.count("\n")) == (1, "", 0), err
    assert complaint in err
    assert err.startswith("parley: ")
