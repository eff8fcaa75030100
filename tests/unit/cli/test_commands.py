"""The commands against a server that answers what a test says: what is sent, what is printed, what is an error."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from parley_cli.__main__ import main

AGENT = {
    "id": "support",
    "name": "Support",
    "template_id": "assistant",
    "model": {"provider": "local", "name": "smollm2"},
    "revision": 2,
    "update_time": "2026-01-01T00:00:00Z",
}
SESSION = {"id": "s-1", "agent_id": "support", "user_id": "ada", "message_count": 2}


class Server(ThreadingHTTPServer):
    """Answers `METHOD path?query` from a table and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.credentials: list[str | None] = []
        self.projects: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = f"{self.command} {self.path}"
        self.server.asked.append((asked, json.loads(body) if body else None))
        self.server.credentials.append(self.headers.get("Authorization"))
        self.server.projects.append(self.headers.get("X-Project-ID"))
        status, answer = self.server.answers[asked]
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("X-Session-ID", "s-9")
        self.send_header("Content-Length", str(len(data) if status != 204 else 0))
        self.end_headers()
        if status != 204:
            self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        monkeypatch.setenv("PARLEY_URL", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["parley", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        try:
            main()
            code: int | str | None = 0
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return (1, out, err + code) if isinstance(code, str) else (code or 0, out, err)

    return run


def sse(*frames: object, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(frame)}\n\n" for frame in frames] + (["data: [DONE]\n\n"] if done else [])
    return (": keep-alive\n\n" + "".join(lines)).encode()


def piece(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


def test_list_follows_pages(server: Server, run) -> None:
    server.answers["GET /v1/agents?page_size=100"] = (200, {"data": [AGENT], "next_page_token": "t"})
    server.answers["GET /v1/agents?page_size=99&page_token=t"] = (200, {"data": [AGENT | {"id": "b"}]})
    code, out, _ = run("agents", "list")
    assert code == 0
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
    lines = iter(["one", " ", "two"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines, None) or raise_end())
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, out, _ = run("chat", "hello")
    assert (code, out) == (0, "ok\nok\n\n")
    assert [body.get("session_id") for _, body in server.asked] == [None, "s-9"]


def raise_end() -> str:
    raise EOFError


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
