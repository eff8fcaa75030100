"""`parley` as a program: whatever goes wrong is one line on standard error, and exit code 1."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parley_cli.__main__ import main
from tests.unit.cli.api_server import Server, piece, sse

PARLEY = [sys.executable, "-m", "parley_cli"]
SECONDS = 60
Run = Callable[..., tuple[int, str, str]]
EVIL = "\x1b]52;c;cm0gLXJm\x07 \x9b31m \u202eevil\u2066 \x7f"
SAFE = "\\u001b]52;c;cm0gLXJm\\u0007 \\u009b31m \\u202eevil\\u2066 \\u007f"
AGENT = {"id": "evil", "name": EVIL, "template_id": "assistant", "revision": 1, "instructions": EVIL}


class Screen(io.StringIO):
    """Where somebody reads."""

    def isatty(self) -> bool:
        return True


def program(
    *arguments: str, env: dict[str, str] | None = None, shell: str = "", **options: Any
) -> tuple[int, str, str]:
    """Runs `parley`; `shell` is what follows it on a command line."""
    command = ["bash", "-c", f'"$@" {shell}', "bash", *PARLEY, *arguments] if shell else [*PARLEY, *arguments]
    options.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(
        command, env=os.environ | (env or {}), capture_output=True, timeout=SECONDS, check=False, **options
    )
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def on_a_terminal(*arguments: str, typed: str = "", env: dict[str, str] | None = None) -> tuple[int, str]:
    """Runs `parley` where somebody sits; returns the exit code, and all that the terminal got."""
    master, slave = pty.openpty()
    environment = os.environ | {"COLUMNS": "120", "TERM": "xterm-256color"} | (env or {})
    process = subprocess.Popen([*PARLEY, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    os.write(master, typed.encode())
    got = b""
    killer = threading.Timer(SECONDS, process.kill)
    killer.start()
    try:
        while True:
            try:
                read = os.read(master, 65536)
            except OSError:
                break
            if not read:
                break
            got += read
        return process.wait(), got.decode(errors="replace")
    finally:
        killer.cancel()
        os.close(master)


@pytest.fixture
def evil(server: Server) -> Server:
    server.answers["GET /v1/agents?page_size=100"] = (200, {"data": [AGENT]})
    server.answers["GET /v1/agents/evil"] = (200, AGENT)
    error = {"message": f"no {EVIL}", "code": "agent_not_found"}
    server.answers["GET /v1/agents/none"] = (404, {"error": error})
    server.answers["POST /v1/chat/completions"] = (200, sse(piece(EVIL[:4]), piece(EVIL[4:])))
    server.answers["GET /v1/sessions/s"] = (200, {"id": "s", "metadata": {"k": EVIL}})
    messages = [{"role": EVIL, "content": EVIL}]
    server.answers["GET /v1/sessions/s/messages?page_size=100"] = (200, {"data": messages})
    differences = [{"path": EVIL, "from": EVIL, "to": f"{EVIL}\n{EVIL}"}]
    compared = {"from_revision": 1, "to_revision": 2, "differences": differences}
    server.answers["GET /v1/agents/evil/compare?from_revision=0&to_revision=0"] = (200, compared)
    return server


COMMANDS = [
    ("agents", "list"),
    ("agents", "get", "evil"),
    ("agents", "get", "evil", "--json"),
    ("agents", "get", "none"),
    ("agents", "export", "evil"),
    ("agents", "diff", "evil"),
    ("sessions", "show", "s"),
    ("sessions", "show", "s", "--json"),
    ("chat", "evil", "hi"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_terminal_obeys_nothing_that_others_wrote(
    evil: Server, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", screen)
    monkeypatch.setattr("sys.argv", ["parley", *command])
    monkeypatch.setenv("NO_COLOR", "1")
    try:
        main()
    except SystemExit as end:
        screen.write(str(end.code))
    shown = screen.getvalue()
    assert "evil" in shown
    assert not set(shown) & set("\x1b\x07\x9b\x7f\u202e\u2066"), shown
    assert "52;c;cm0gLXJm" in shown.replace("\r\n", "")


@pytest.mark.slow
def test_a_pipe_gets_what_was_written(evil: Server) -> None:
    assert EVIL in program("chat", "evil", "hi")[1]
    assert EVIL[:5] in program("agents", "list")[1]
    assert json.loads(program("agents", "get", "evil", "--json")[1]) == AGENT
    code, shown = on_a_terminal("chat", "evil", "hi")
    assert (code, SAFE in shown) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("command", [("agents", "list"), ("-h",), ("agents", "get", "none"), ("top",)], ids=" ".join)
def test_no_color_is_none(evil: Server, command: tuple[str, ...]) -> None:
    if command == ("top",):
        assert "\x1b" not in program("top", env={"NO_COLOR": "1"})[1]
        return
    assert "\x1b[" not in on_a_terminal(*command, env={"NO_COLOR": "1"})[1]


@pytest.mark.slow
def test_without_no_color_there_is_some(evil: Server) -> None:
    assert "\x1b[" in on_a_terminal("agents", "list", env={"NO_COLOR": ""})[1]


@pytest.mark.slow
def test_top_into_a_pipe_prints_once(server: Server) -> None:
    code, out, err = program("top", "--interval", "0.2")
    assert (code, err) == (0, "")
    assert "0 of 1" in out


@pytest.mark.slow
def test_what_is_deleted_on_a_terminal_is_asked_about(server: Server) -> None:
    server.answers["DELETE /v1/agents/support"] = (204, None)
    server.answers["DELETE /v1/sessions/s-1"] = (204, None)
    server.answers["DELETE /v1/api_keys/key_1"] = (204, None)
    deletions = [("agents", "delete", "support"), ("sessions", "delete", "s-1"), ("keys", "revoke", "key_1")]
    for command in deletions:
        code, shown = on_a_terminal(*command, typed="n\n")
        assert (code, "[y/N]" in shown, "nothing was changed" in shown) == (1, True, True)
    assert server.asked == []
    for command in deletions:
        assert program(*command)[0] == 0  # as scripts always could
    assert on_a_terminal(*deletions[0], typed="y\n")[0] == 0
    assert on_a_terminal(*deletions[0], "--yes")[0] == 0
    assert len(server.asked) == 5


@pytest.mark.slow
def test_version_and_completion() -> None:
    code, out, _ = program("--version")
    assert code == 0
    assert out.startswith("parley ")
    for shell in ("bash", "zsh", "fish"):
        code, out, err = program(env={"_PARLEY_COMPLETE": f"source_{shell}"})
        assert (code, err) == (0, "")
        assert "_PARLEY_COMPLETE" in out


@pytest.mark.slow
def test_agents_are_completed(server: Server) -> None:
    server.answers["GET /v1/agents?page_size=100"] = (200, {"data": [{"id": "support"}, {"id": "sales"}]})
    asked = {"_PARLEY_COMPLETE": "complete_bash", "COMP_WORDS": "parley chat su", "COMP_CWORD": "2"}
    assert program(env=asked)[1].split() == ["support"]
    assert program(env=asked | {"PARLEY_URL": "http://127.0.0.1:1"})[::2] == (0, "")


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:1", "PARLEY_URL": "http://parley.invalid"}, "cannot"),
        ({"HTTP_PROXY": "gopher://127.0.0.1:1", "PARLEY_URL": "http://parley.invalid"}, "cannot"),
        ({"SSL_CERT_FILE": "/no/such/file", "PARLEY_URL": "https://parley.invalid"}, "cannot"),
        ({"PARLEY_API_KEY": "parley_sk_x\n"}, "PARLEY_API_KEY must be printable ASCII"),
        ({"PARLEY_API_KEY": "key\nX-Evil: 1"}, "PARLEY_API_KEY must be printable ASCII"),
        ({"PARLEY_API_KEY": "schlüssel"}, "PARLEY_API_KEY must be printable ASCII"),
        ({"PARLEY_URL": "http://["}, "cannot"),
        ({"PARLEY_URL": "gateway:8080"}, "cannot"),
        ({"PARLEY_URL": "http://127.0.0.1:99999999"}, "cannot"),
        ({"PARLEY_URL": "http://a\nb"}, "cannot"),
    ],
    ids=lambda value: str(sorted(value.items())[0]) if isinstance(value, dict) else None,
)
def test_an_environment_that_can_not_be_used(
    run: Run, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], complaint: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    code, out, err = run("chat", "hello", "hi")
    assert (code, out, len(err.splitlines())) == (1, "", 1), err
    assert err.startswith("parley: ")
    assert complaint in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "shell", "complaint"),
    [
        (("chat", "hello"), "<&-", "standard input is closed"),
        (("agents", "create", "-f", "-"), "<&-", "standard input is closed"),
        (("agents", "list"), ">&-", "standard output is closed"),
        (("agents", "list"), ">/dev/full", "No space left on device"),
        (("chat", "hello", "hi"), ">/dev/full", "No space left on device"),
        (("-h",), ">/dev/full", "No space left on device"),
        (("chat", "hello"), r"< <(printf 'a\xff\n')", "is not UTF-8"),
        (("agents", "create", "-f", "-"), r"< <(printf 'a: \xff\n')", "is not UTF-8"),
        (("agents", "create", "-f", "/"), "", "Is a directory"),
        (("agents", "export", "-d", "/proc/none"), "", "/proc"),
        (("agents", "list", "--project", "a\nb"), "", "--project must be printable ASCII"),
        (("chat", "hello", "hi", "--project", "ä"), "", "--project must be printable ASCII"),
        (("up", "--data", "/proc/none"), "", "/proc/none"),
        (("up", "--env-file", "/"), "", "cannot read /"),
        (("top", "http://["), "", "not the address of a replica"),
    ],
    ids=lambda value: " ".join(value).replace("\n", " ") if isinstance(value, tuple) else None,
)
def test_what_goes_wrong_is_one_line(
    server: Server, run: Run, tmp_path: Path, arguments: tuple[str, ...], shell: str, complaint: str
) -> None:
    server.answers["GET /v1/agents?page_size=100"] = (200, {"data": [AGENT | {"name": "x"}]})
    server.answers["GET /v1/models/hello"] = (200, {"id": "hello"})
    server.answers["GET /v1/tool_servers?page_size=100"] = (200, {"data": []})
    server.answers["POST /v1/chat/completions"] = (200, sse(piece("ok")))
    code, _, err = program(*arguments, shell=shell, cwd=tmp_path) if shell else run(*arguments)
    assert (code, len(err.splitlines())) == (1, 1), err
    assert err.startswith("parley: ")
    assert complaint in err


@pytest.mark.slow
def test_a_reader_that_leaves_is_one_line(server: Server) -> None:
    rows = [{"id": f"a{number}", "name": "x" * 1000} for number in range(100)]
    server.answers["GET /v1/agents?page_size=100"] = (200, {"data": rows})
    for arguments in (("agents", "list"), ("agents", "list", "--json")):
        code, _, err = program(*arguments, shell="| true; exit ${PIPESTATUS[0]}")
        assert (code, err) == (1, "parley: standard output was closed by its reader\n")


@pytest.mark.slow
def test_an_ascii_terminal_gets_everything_in_ascii(server: Server) -> None:
    server.answers["POST /v1/chat/completions"] = (200, sse(piece("Grüße \ud83d\ude00 \ud800")))
    server.answers["GET /v1/agents?page_size=100"] = (200, {"data": [AGENT | {"name": "Grüße"}]})
    code, out, _ = program("chat", "hello", "hi", env={"PYTHONIOENCODING": "ascii"})
    assert (code, out) == (0, "Gr\\xfc\\xdfe \\U0001f600 \\ud800\n")
    code, out, _ = program("agents", "list", env={"PYTHONIOENCODING": "ascii"})
    assert (code, "Gr\\xfc\\xdfe" in out) == (0, True)


@pytest.mark.slow
def test_text_that_is_not_utf_8_is_not_sent(server: Server) -> None:
    for arguments in ([b"chat", b"hello", b"a\xff"], [b"agents", b"get", b"a\xff"]):
        command = [*(part.encode() for part in PARLEY), *arguments]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        assert (done.returncode, done.stderr) == (1, b"parley: text that is not UTF-8 can't be sent\n")


@pytest.mark.slow
def test_an_interruption_is_one_line(server: Server) -> None:
    server.hold = threading.Event()
    server.answers["GET /v1/agents?page_size=100"] = (200, {"data": []})
    process = subprocess.Popen(
        [*PARLEY, "agents", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What a shell runs in the background, such as this suite, ignores it, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert server.reached.wait(SECONDS)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    server.hold.set()
    assert (process.returncode, out, err) == (1, b"", b"parley: interrupted\n")
