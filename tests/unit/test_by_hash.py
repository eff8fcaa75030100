"""What is installed is what the lock has hashes of, on what a digest names, and an audit says when it is none."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy" / "images"), str(ROOT / ".ci")]

import audit  # noqa: E402
import build  # noqa: E402
import install  # noqa: E402


class Commands:
    """In place of `subprocess.run`: records commands, and answers each in the same way."""

    def __init__(self, *, code: int = 0, out: str = "", err: str = "") -> None:
        self.made: list[list[str]] = []
        self._done = SimpleNamespace(returncode=code, stdout=out, stderr=err)

    def run(self, command: list[str], **_: Any) -> Any:
        self.made.append([str(one) for one in command])
        return self._done


def test_an_environment_is_installed_by_the_hashes_of_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed: list[tuple[str, ...]] = []
    monkeypatch.setattr(install, "pip", lambda python, progress, *arguments: installed.append(arguments))
    monkeypatch.setattr(install, "LOCKED", ROOT / "constraints.txt")
    monkeypatch.setattr(install.subprocess, "run", Commands().run)
    monkeypatch.setattr(sys, "argv", ["install.py", str(tmp_path)])
    monkeypatch.setenv("PYTHONPATH", "")  # main() takes it away, and this puts it back
    install.main()
    [locked, own] = installed
    assert {"--require-hashes", "--no-deps", str(ROOT / "constraints.txt")} <= set(locked)
    assert {"--no-deps", "."} <= set(own)


@pytest.mark.parametrize("command", ["download", "install"])
def test_the_packages_of_images_are_too(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    monkeypatch.setattr(build.subprocess, "run", commands.run)
    build._pip(command, "aiohttp==1 --hash=sha256:00")
    assert {command, "--require-hashes", "--no-deps"} <= set(commands.made[0])


def test_an_image_is_built_on_the_digest_of_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def docker(*arguments: str) -> str:
        asked.append(arguments)
        return {"version": "amd64", "image": '["python@sha256:ab"]'}.get(arguments[0], "")

    monkeypatch.setattr(build, "docker", docker)
    monkeypatch.setattr(build, "install", lambda *_: None)
    monkeypatch.setattr(build, "BUILD", tmp_path)
    monkeypatch.delenv("PYTHON_IMAGE", raising=False)
    build.build("config_svc", tag="1", revision="r")
    [built] = [arguments for arguments in asked if arguments[0] == "build"]
    assert "PYTHON_IMAGE=python@sha256:ab" in built


def test_an_audit_of_nothing_says_that_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = Commands(code=1, err="a warning\nno route to the service")
    monkeypatch.setattr(audit, "auditor", lambda: ["pip-audit"])
    monkeypatch.setattr(audit.subprocess, "run", commands.run)
    assert audit.main() == 2
    said = capsys.readouterr().err.splitlines()
    assert [f"{service}: no route to the service" for service in audit.SERVICES] == said[:-1]
    assert said[-1].startswith("NOT AUDITED: no source of advisories is reachable")
    assert all({"constraints.txt", "--require-hashes"} <= set(command) for command in commands.made)


def test_a_service_that_knows_no_package_has_audited_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def late(*_: Any, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("pip-audit", 1)

    monkeypatch.setattr(audit, "auditor", lambda: ["pip-audit"])
    knows_none = Commands(out='{"dependencies": [{"name": "a", "skip_reason": "not found"}]}')
    for run, word in ((knows_none.run, "knows none of 1 packages"), (late, "no answer within")):
        monkeypatch.setattr(audit.subprocess, "run", run)
        assert audit.main() == 2
        said = capsys.readouterr().err
        assert word in said
        assert "NOT AUDITED: no source" in said
