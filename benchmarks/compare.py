"""`make bench-compare BASE=<git rev>`: this working tree against another revision, both running, measured in turns.

The revision is checked out beside this one (git worktree) and runs in the same virtual environment. Every round
measures both versions next to each other, in an order that alternates, so that what disturbs the machine disturbs both;
the ratios are those of each round. With `--together` both are under load at the same time, each with half of it: their
times mean nothing then, but what each takes of the CPU for a turn compares best so on a machine that others use, too.
With `--instructions` it is not time that is compared but instructions, under valgrind: see `benchmarks.instructions`.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import callgrind, instructions, measures
from benchmarks.callgrind import ValgrindMissing
from benchmarks.driver import Result
from benchmarks.measures import FULL, TOOL_TURN, Bench, Case, median_and_spread, turn_cpu
from benchmarks.run import RESULTS, tools
from benchmarks.system import ROOT, BenchmarkFailed, MockProcess, Stores, System
from parley_cli.errors import LocalError

SECONDS, WARM = 2.5, 0.5
ROUNDS = 10
CASES = (*measures.CASES, TOOL_TURN)
Rounds = dict[str, list[tuple[Result, Result]]]


@contextmanager
def worktree(revision: str, folder: Path) -> Iterator[Path]:
    """Checks a revision out. Raises `BenchmarkFailed` when there is no such revision."""
    _git("worktree", "add", "--detach", str(folder), revision)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


@contextmanager
def both_running(base: Path, *, counted: bool = False) -> Iterator[tuple[Bench, Bench]]:
    """Starts this tree and `base`, each with a Valkey and a database of its own, on one mock model and one MCP server.

    Those that are to be `counted` run under valgrind.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-bench-")))
        folder.chmod(0o755)
        mock = MockProcess(folder)
        stack.callback(mock.close)
        mock.start()
        server = stack.enter_context(tools())
        stores = Stores(folder)
        stack.callback(stores.close)
        stores.start()
        sessions = itertools.count(1_000_000, 1_000_000)
        systems = []
        for name, code in (("this", ROOT), ("base", base)):
            under = instructions.under(folder / name) if counted else {}
            extra = instructions.ENVIRONMENT if counted else {}
            system = System(stores, mock, folder / name, code=code, database=name, under=under, extra=extra)
            systems.append(stack.enter_context(system))
        with ThreadPoolExecutor(2) as both:
            list(both.map(System.start, systems))
        for system, agent in itertools.product(systems, measures.AGENTS):
            system.create_agent(agent.id, agent.profile, agent.max_messages)
        for system in systems:
            measures.create_agent_with_tools(system, server.url)
        this, other = (Bench(system, mock, sessions) for system in systems)
        yield this, other


def play_rounds(this: Bench, base: Bench, cases: list[Case], number: int) -> Rounds:
    """Measures each case so many times on both, one right after the other; pairs of this tree and base."""
    effort = replace(FULL, seconds=SECONDS, warm=WARM)
    for case in cases:  # what happens once, such as building the agent, falls into no round
        for bench in (this, base):
            bench.point(case, replace(effort, seconds=1.0))
    rounds: Rounds = {case.name: [] for case in cases}
    for turn in range(number):
        for case in cases:
            if turn % 2:
                in_base = base.point(case, effort)
                rounds[case.name].append((this.point(case, effort), in_base))
            else:
                in_this = this.point(case, effort)
                rounds[case.name].append((in_this, base.point(case, effort)))
    return rounds


def play_together(this: Bench, base: Bench, cases: list[Case], number: int) -> Rounds:
    """Measures each case so many times on both at the same time; pairs of this tree and base."""
    effort = replace(FULL, seconds=2 * SECONDS, warm=2 * WARM)
    rounds: Rounds = {case.name: [] for case in cases}
    with ThreadPoolExecutor(2) as both:
        for _, case in itertools.product(range(number), cases):
            half = replace(case, concurrency=max(case.concurrency // 2, 1))
            in_this, in_base = both.map(lambda bench, half=half: bench.point(half, effort), (this, base))
            rounds[case.name].append((in_this, in_base))
    return rounds


def ratios(rounds: Rounds, *, times: bool = True) -> dict[str, list[float]]:
    """Returns this tree's figures over the base's, for each round; without `times` those of the CPU only."""
    found: dict[str, list[float]] = {}
    for case, pairs in rounds.items():
        found[f"{case}: CPU a turn"] = [turn_cpu(a) / turn_cpu(b) for a, b in pairs]
        for part in ("gateway", "session_svc", "redis"):
            # A short window at low load may count no tick of a process.
            found[f"{case}: CPU, {part}"] = [
                a.cpu_ms[part] / b.cpu_ms[part] for a, b in pairs if a.cpu_ms[part] and b.cpu_ms[part]
            ]
        if not times:
            continue
        found[f"{case}: latency"] = [a.latency_ms / b.latency_ms for a, b in pairs]
        found[f"{case}: first token"] = [a.first_token_ms / b.first_token_ms for a, b in pairs]
        found[f"{case}: turns/s"] = [(a.turns / a.seconds) / (b.turns / b.seconds) for a, b in pairs]
    return {name: values for name, values in found.items() if values}


def table(found: dict[str, list[float]]) -> str:
    """Returns the ratios as text."""
    lines = [f"{'this tree : base':42}{'median':>8}   (least .. most)", ""]
    for name, values in found.items():
        middle, low, high = median_and_spread(values)
        lines.append(f"{name:42}{middle:8.3f}   ({low:.3f} .. {high:.3f})")
    return "\n".join(lines)


def main() -> None:
    """Compares and report; exit code 1 when a measurement can't be trusted, 2 when what it takes is missing."""
    given = _arguments()
    try:
        if given.instructions:
            callgrind.check_installed()
        with (
            tempfile.TemporaryDirectory(prefix="parley-base-") as folder,
            worktree(given.base, Path(folder) / "tree") as base,
            both_running(base, counted=given.instructions) as (this, other),
        ):
            text, found = (_instructions if given.instructions else _times)(this, other, given)
    except ValgrindMissing as missing:
        sys.stderr.write(f"bench-compare: {missing}\n")
        sys.exit(2)
    except (BenchmarkFailed, LocalError) as error:
        sys.exit(f"bench-compare: {error}")
    print(text)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / time.strftime("compare-%Y%m%d-%H%M%S.json")
    file.write_text(json.dumps({"base": given.base, **found}, indent=1) + "\n")
    print(f"\n{file.relative_to(ROOT)}")


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("base", help="the git revision to compare with")
    arguments.add_argument("--rounds", type=int, help=f"{ROUNDS} by default, of instructions {instructions.MAX_ROUNDS}")
    arguments.add_argument("--together", action="store_true", help="both at the same time; the CPU of a turn only")
    arguments.add_argument("--instructions", action="store_true", help="count instructions, by valgrind")
    arguments.add_argument("--case", action="append", choices=[case.name for case in CASES], help="only this case")
    return arguments.parse_args()


def _times(this: Bench, base: Bench, given: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    cases = [case for case in CASES if not given.case or case.name in given.case]
    play = play_together if given.together else play_rounds
    found = ratios(play(this, base, cases, given.rounds or ROUNDS), times=not given.together)
    return table(found), {"ratios": found}


def _instructions(this: Bench, base: Bench, given: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    counted = [instructions.CountedSystem(bench) for bench in (this, base)]
    rounds = instructions.play_rounds(counted[0], counted[1], given.rounds or instructions.MAX_ROUNDS)
    found = instructions.figures(rounds)
    counts = {name: [[asdict(count) for count in pair] for pair in pairs] for name, pairs in rounds.items()}
    figures = {name: asdict(figure) for name, figure in found.items()}
    return instructions.table(found), {"instructions": figures, "counts": counts}


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise BenchmarkFailed(f"git {arguments[0]} {arguments[1]}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
