"""`make bench`: measures what a turn costs, prints the table and the plots, writes JSON and a PNG."""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import measures, plot, procfs, report
from benchmarks.first_paint import appearances
from benchmarks.measures import FULL, QUICK, Bench, Effort
from benchmarks.system import ROOT, BenchmarkFailed, MockProcess, Stores, System, ToolsProcess
from parley_cli.errors import LocalError
from parley_cli.processes.ports import LOOPBACK

RESULTS = Path(__file__).with_name("results")
PACKAGES = ("grpcio", "protobuf", "uvloop", "httptools", "uvicorn", "msgspec", "hiredis")


@contextmanager
def running(effort: Effort) -> Iterator[Bench]:
    """Starts stores, mock and system; ends them and removes their data."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-bench-")))
        folder.chmod(0o755)
        mock = MockProcess(folder)
        stack.callback(mock.close)
        mock.start()
        stores = Stores(folder)
        stack.callback(stores.close)
        stores.start()
        system = stack.enter_context(System(stores, mock, folder / "system", database="bench"))
        system.start(effort.starts)
        for agent in measures.AGENTS:
            system.create_agent(agent.id, agent.profile, agent.max_messages)
        yield Bench(system, mock)


@contextmanager
def tools() -> Iterator[ToolsProcess]:
    """Starts an MCP server; end it."""
    with tempfile.TemporaryDirectory(prefix="parley-bench-") as folder:
        process = ToolsProcess(Path(folder))
        try:
            process.start()
            yield process
        finally:
            process.close()


def measure(effort: Effort) -> tuple[list[report.Row], report.Pairs, measures.Growth]:
    """Measures everything. Raises `BenchmarkFailed` when a turn was not right."""
    with tools() as server, running(effort) as bench:
        _tell("nobody calling")
        at_rest = measures.idle_cpu(bench.system, effort)
        measures.check_the_checks(bench)
        pairs = measures.interleaved(bench, effort, _tell)
        _tell("turn 1000 against turn 10")
        growth = measures.growth(bench, effort)
        without_tools, _ = measures.resident_memory(bench.system)["chat_gateway"]
        _tell("tool steps")
        steps = measures.tool_steps(bench, effort, server.url)
        _tell("turns with a journal")
        kept = measures.journals(bench, effort)
        _tell("memory")
        idle = measures.idle_session(bench, effort)
        resident = measures.resident_memory(bench.system)
        starts = {name: service.start_seconds for name, service in bench.system.services.items()}
        _tell("the console")
        shown = appearances(f"http://{LOOPBACK}:{bench.system.http_port}", effort.repeats)
    memory = report.rows_of_memory(idle, resident, without_tools, measures.instance_bytes(), starts)
    rows = report.rows_of_turns(pairs) + report.rows_of_growth(growth) + report.rows_of_tools(steps, kept)
    rows += report.rows_of_idle_cpu(at_rest) + memory
    rows += report.rows_of_console(shown)
    return rows, pairs, growth


def about(effort: Effort, began: float) -> dict[str, Any]:
    """Returns what was measured, on what, and when."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "took_seconds": round(time.monotonic() - began),
        "quick": effort is QUICK,
        "revision": revision.stdout.strip(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "hardware": procfs.hardware(),
    }


def main() -> None:
    """Measures and report; exit code 1 when a measurement can't be trusted."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="about 90 seconds instead of seven minutes")
    effort = QUICK if arguments.parse_args().quick else FULL
    began = time.monotonic()
    try:
        rows, pairs, growth = measure(effort)
    except (BenchmarkFailed, LocalError) as error:
        sys.exit(f"bench: {error}")
    sys.stderr.write("\r\033[K")
    print(report.table(rows), plot.in_terminal(pairs, growth), sep="\n\n")
    if not any(row.name == report.FIRST_PAINT for row in rows):
        print(f"{report.FIRST_PAINT}: not measured, there is no chromium")
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    repeats = len(pairs[measures.THROUGHPUT.name])
    found = report.as_json(rows, pairs, growth, {**about(effort, began), "repeats": repeats})
    file.write_text(json.dumps(found, indent=1) + "\n")
    plot.to_png(pairs, growth, file.with_suffix(".png"))
    print(
        f"\n{file.relative_to(ROOT)} and .png, after {found['took_seconds']} s, {repeats} repeats of {effort.repeats}"
    )


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{what} …")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
