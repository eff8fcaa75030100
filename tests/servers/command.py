"""The `parley` command, called in this process."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import pytest

from parley_cli.__main__ import main

Run: TypeAlias = Callable[..., tuple[int, str, str]]
"""Calls the command with these arguments, and returns its exit code, stdout and stderr."""


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variables: Mapping[str, str]) -> Run:
    """Return the command, with these environment variables."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["parley", *arguments])
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        try:
            main()
            code: int | str | None = 0
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return (1, out, err + code) if isinstance(code, str) else (code or 0, out, err)

    return run
