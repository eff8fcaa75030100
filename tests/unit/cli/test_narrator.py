import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from parley_cli.local.narrator import Narrator, process_table
from parley_cli.processes.child import Child


class Here:
    """A part whose process has this test's own id."""

    name = "gateway-1"
    ready_seconds = 1.0

    def __init__(self, folder: Path) -> None:
        self.child = Child(self.name, ["/bin/sleep", "30"], log=folder / "log")

    def launch(self) -> None:
        self.child.start()

    def ready(self) -> bool:
        return True


def narrator(*, terminal: bool) -> tuple[Narrator, io.StringIO]:
    out = io.StringIO()
    return Narrator(Console(file=out, force_terminal=terminal, width=100, color_system=None)), out


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    speaker, out = narrator(terminal=True)
    with speaker.progress(["postgres", "redis"]) as told:
        told("redis")
        told("postgres")
    assert "starting postgres" in out.getvalue()
    assert "2/2" in out.getvalue()


def test_a_pipe_gets_a_line_for_each_stage() -> None:
    speaker, out = narrator(terminal=False)
    with speaker.progress(["postgres", "redis"]) as told:
        told("redis")
    assert out.getvalue().startswith("redis ready after 0.")
    assert "\x1b" not in out.getvalue()


@pytest.mark.slow
def test_status_on_a_terminal_is_a_table_that_is_redrawn(tmp_path: Path) -> None:
    part = Here(tmp_path)
    part.launch()
    speaker, out = narrator(terminal=True)
    with speaker.status([part], {"gateway-1": "http 8080"}) as tick:
        tick()
    pid = part.child.pid
    part.child.kill()
    lines = out.getvalue().splitlines()
    assert any("gateway-1" in line and "running" in line and str(pid) in line and "http 8080" in line for line in lines)
    assert "Ctrl-C stops everything" in out.getvalue()


def test_lines_are_printed_as_they_are() -> None:
    speaker, out = narrator(terminal=False)
    line = 'curl -d \'{"messages": [{"role": "user"}]}\' [bold]' + "x" * 200
    speaker.say(line)
    assert out.getvalue() == line + "\n"


@pytest.mark.parametrize(("pid", "state"), [(os.getpid(), "running"), (2**22 + 1, "dead")], ids=["running", "dead"])
def test_a_process_that_is_gone_is_dead(pid: int, state: str) -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(process_table([("redis", pid, "port 1")]))
    assert state in out.getvalue()
