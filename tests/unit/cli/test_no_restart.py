"""`parley up --detach --no-restart`: the process that it leaves running restarts nothing, either."""

import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from parley_cli.commands.app import app


class _Started(Exception):
    pass


@pytest.mark.parametrize(("option", "passed_on"), [("--no-restart", True), ("--restart", False)])
def test_it_is_passed_on(option: str, passed_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def start(command: list[str], **_: object) -> None:
        started.append(command)
        raise _Started

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", start)
    done = CliRunner().invoke(app, ["up", "--detach", option, "--data", str(tmp_path / "data")])
    assert isinstance(done.exception, _Started), done.output
    assert ("--no-restart" in started[0]) is passed_on
