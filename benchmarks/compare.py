"""`make bench-compare BASE=<git rev>`: this working tree against another revision, both running, measured in turns.

The revision is checked out beside this one (git worktree) and runs in the same virtual environment. Every round
measures both versions next to each other, in an order that alternates, so that what disturbs the machine disturbs both;
the ratios are those of each round. With `--together` both are under load at the same time, each with half of it: their
times mean nothing then, but what each takes of the CPU for a turn compares best so on a machine that others use, too.
"""

from __future__ import annotations

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
from dataclasses import replace
from pathlib import Path

from benchmarks import measures
from benchmarks.driver import Result
from benchmarks.measures import CASES, FULL, Bench, Case, median_and_spread, turn_cpu
from benchmarks.run import RESULTS
from benchmarks.system import ROOT, BenchmarkFailed, MockProcess, Stores, System
from parley_cli.errors import LocalError

SECONDS, WARM = 2.5, 0.5
Rounds = dict[str, list[tuple[Result, Result]]]


@contextmanager
def worktree(revision: str, folder: Path) -> Iterator[Path]:
    """Check a revision out. Raises `BenchmarkFailed` when there is no such revision."""
    _git("worktree", "add", "--detach", str(folder), revision)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


@contextmanager
def both_running(base: Path) -> Iterator[tuple[Bench, Bench]]:
    """Start this tree and `base`, each with a Valkey and a database of its own, on one mock model."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-bench-")))
        folder.chmod(0o755)
        mock = MockProcess(folder)
        stack.callback(mock.close)
        mock.start()
        stores = Stores(folder)
        stack.callback(stores.close)
        stores.start()
        sessions = itertools.count(1_000_000, 1_000_000)
        benches = []
        for name, code in (("this", ROOT), ("base", base)):
            system = stack.enter_context(System(stores, mock, folder / name, code=code, database=name))
            system.start()
            for agent in measures.AGENTS:
                system.create_agent(agent.id, agent.profile, agent.max_messages)
            benches.append(Bench(system, mock, sessions))
        yield benches[0], benches[1]


def play_rounds(this: Bench, base: Bench, cases: list[Case], number: int) -> Rounds:
    """Measure each case so many times on both, one right after the other; pairs of this tree and base."""
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
    """Measure each case so many times on both at the same time; pairs of this tree and base."""
    effort = replace(FULL, seconds=2 * SECONDS, warm=2 * WARM)
    rounds: Rounds = {case.name: [] for case in cases}
    with ThreadPoolExecutor(2) as both:
        for _, case in itertools.product(range(number), cases):
            half = replace(case, concurrency=max(case.concurrency // 2, 1))
            in_this, in_base = both.map(lambda bench, half=half: bench.point(half, effort), (this, base))
            rounds[case.name].append((in_this, in_base))
    return rounds


def ratios(rounds: Rounds, *, times: bool = True) -> dict[str, list[float]]:
    """Return this tree's figures over the base's, for each round; without `times` those of the CPU only."""
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
    """Return the ratios as text."""
    lines = [f"{'this tree : base':42}{'median':>8}   (least .. most)", ""]
    for name, values in found.items():
        middle, low, high = median_and_spread(values)
        lines.append(f"{name:42}{middle:8.3f}   ({low:.3f} .. {high:.3f})")
    return "\n".join(lines)


def main() -> None:
    """Compare and report; exit code 1 when a measurement can't be trusted."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("base", help="the git revision to compare with")
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--together", action="store_true", help="both at the same time; the CPU of a turn only")
    arguments.add_argument("--case", action="append", choices=[case.name for case in CASES], help="only this case")
    given = arguments.parse_args()
    cases = [case for case in CASES if not given.case or case.name in given.case]
    try:
        with (
            tempfile.TemporaryDirectory(prefix="parley-base-") as folder,
            worktree(given.base, Path(folder) / "tree") as base,
            both_running(base) as (this, other),
        ):
            play = play_together if given.together else play_rounds
            found = ratios(play(this, other, cases, given.rounds), times=not given.together)
    except (BenchmarkFailed, LocalError) as error:
        sys.exit(f"bench-compare: {error}")
    print(table(found))
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / time.strftime("compare-%Y%m%d-%H%M%S.json")
    file.write_text(json.dumps({"base": given.base, "ratios": found}, indent=1) + "\n")
    print(f"\n{file.relative_to(ROOT)}")


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise BenchmarkFailed(f"git {arguments[0]} {arguments[1]}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
