"""The output of `parley up`: a progress bar and a live table on a terminal, plain lines anywhere else."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import psutil
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from parley_cli.processes.supervisor import Part
from parley_cli.terminal import shown

REFRESH_SECONDS = 1.0


class Narrator:
    """Writes to the terminal on which the system was started."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str = "") -> None:
        """Prints one plain line, whatever characters it has."""
        self.console.print(Text(shown(line, self.console.file)), soft_wrap=True)

    @contextmanager
    def progress(self, stages: Sequence[str]) -> Iterator[Callable[[str], None]]:
        """Yields what to call with the name of each stage that is done, while the bar shows the others."""
        began = time.monotonic()
        if not self.console.is_terminal:
            yield lambda stage: self.say(f"{stage} ready after {time.monotonic() - began:.1f} s")
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        waiting = list(stages)
        with Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True) as bar:
            task = bar.add_task(f"starting {waiting[0]}", total=len(stages))

            def done(stage: str) -> None:
                waiting.remove(stage)
                bar.update(task, advance=1, description=f"starting {waiting[0]}" if waiting else "ready")

            yield done

    @contextmanager
    def status(self, parts: Sequence[Part], addresses: dict[str, str]) -> Iterator[Callable[[], None]]:
        """Yields what to call now and then to keep the table of parts up to date."""
        if not self.console.is_terminal:
            self.say("running; Ctrl-C (SIGINT) or SIGTERM stops everything")
            yield lambda: None
            return
        began = time.monotonic()

        def view() -> Group:
            up = timedelta(seconds=int(time.monotonic() - began))
            return Group(parts_table(parts, addresses), Text(f"up {up}, Ctrl-C stops everything", style="dim"))

        with Live(view(), console=self.console, auto_refresh=False) as live:
            yield lambda: live.update(view(), refresh=True)


def parts_table(parts: Sequence[Part], addresses: dict[str, str]) -> Table:
    """Returns the table of running parts."""
    rows = [(part.name, part.child.pid, addresses.get(part.name, "")) for part in parts if part.child is not None]
    return process_table(rows)


def process_table(rows: Sequence[tuple[str, int, str]]) -> Table:
    """Returns a table of processes: name, whether it runs, process id, memory, address."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("part", "state", "pid", "memory", "listens on"):
        table.add_column(column, justify="right" if column in ("pid", "memory") else "left")
    for name, pid, address in rows:
        memory = resident_memory(pid)
        state = Text("running", style="green") if memory is not None else Text("dead", style="red")
        table.add_row(name, state, str(pid), f"{memory // 2**20} MB" if memory is not None else "", address)
    return table


def resident_memory(pid: int) -> int | None:
    """Returns the bytes that a process holds in memory, or None when there is no such process."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.memory_info().rss)
    except psutil.Error:
        return None
