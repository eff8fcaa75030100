"""`make bench-compare BASE=<git rev> ARGS=--instructions`: instructions a turn, this tree against another revision.

Gateway and session_svc of both trees run under callgrind. In every round both trees play the same turns at the same
time, so that what depends on time (how many turns share a message, timers) is alike for both. What a process does
without any turn, in that time, is measured in every round, too, and taken off: as one rate for both trees, because two
that are measured for seconds differ by chance, and would make a difference of some percent between equal trees.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import callgrind
from benchmarks.callgrind import Counter, Taken
from benchmarks.driver import Step
from benchmarks.measures import FAST, TOOL_TURN, TURNS, Bench, Case, median_and_spread
from benchmarks.repeats import within

PARTS = {"gateway": "chat_gateway", "session_svc": "session_svc"}
CASES = (
    Case("one at a time", FAST, 1, stream=False),
    Case("one at a time, streamed", FAST, 1, stream=True),
    Case("8 at once", FAST, 8, stream=False),
    Case("8 at once, streamed", FAST, 8, stream=True),
    TOOL_TURN,
)
SESSIONS = {1: 3, 8: 8}
"""How many sessions of ten turns one count takes, by concurrency."""
WARM_SESSIONS = 24
IDLE = "idle"
IDLE_SECONDS = 3.0
MIN_ROUNDS, MAX_ROUNDS = 2, 6
ROUNDS_SECONDS = 190.0

ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    # Ten lines a second are nothing among a thousand turns, and would be one for each turn here.
    "PARLEY_SESSION_LOG_LEVEL": "warning",
    "PARLEY_GATEWAY_LOG_LEVEL": "warning",
    # Everything takes fifty times as long: no wait may end in an error, and no lease be renewed for that.
    "PARLEY_GATEWAY_PEER_TIMEOUT": "60",
    "PARLEY_GATEWAY_CONFIG_READ_TIMEOUT": "60",
    "PARLEY_GATEWAY_CONNECT_TIMEOUT": "60",
    "PARLEY_GATEWAY_LEASE_RENEW_INTERVAL": "200",
    "PARLEY_GATEWAY_PROVIDERS_TTL": "3600",
    "PARLEY_SESSION_LEASE": "600",
    "PARLEY_SESSION_CLAIM": "60",
}


@dataclass(frozen=True, slots=True)
class Count:
    """What each process executed over some turns."""

    turns: int
    taken: dict[str, Taken]


Rounds = dict[str, list[tuple[Count, Count]]]
"""Counts of this tree and the base, by case; `IDLE` is the one without turns."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Instructions a turn of one process: the ratio this : base of each round, the medians of both."""

    ratios: list[float]
    this: float
    base: float


def under(folder: Path) -> dict[str, list[str]]:
    """Returns what the services of the system in `folder` run under, by module."""
    return {module: callgrind.command(_dumps(folder, module)) for module in PARTS.values()}


class CountedSystem:
    """A running system whose gateway and session_svc are counted."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        services, folder = bench.system.services, bench.system.folder
        self._counters = {part: Counter(services[of].pid, _dumps(folder, of)) for part, of in PARTS.items()}

    def start(self) -> None:
        """Play what happens once and what makes Python specialise its code, then begin to count."""
        for warm in (Case("warm", FAST, 8, stream=False), Case("warm", FAST, 8, stream=True), TOOL_TURN):
            self._turns(warm, WARM_SESSIONS)
        for counter in self._counters.values():
            counter.start()
        for case in CASES:
            self._turns(case, case.concurrency)

    def count(self, name: str) -> Count:
        """Counts one case, or `IDLE`."""
        for counter in self._counters.values():
            counter.take()
        turns = self._play(name)
        taken = {part: counter.take() for part, counter in self._counters.items()}
        return Count(turns, taken)

    def _play(self, name: str) -> int:
        if name == IDLE:
            time.sleep(IDLE_SECONDS)
            return 0
        case = next(case for case in CASES if case.name == name)
        return self._turns(case, SESSIONS[case.concurrency])

    def _turns(self, case: Case, sessions: int) -> int:
        step = Step(case.name, case.concurrency, TURNS, self._bench.block(), sessions=sessions)
        return self._bench.run(case.agent, [step], stream=case.stream)[0].turns


def play_rounds(
    this: CountedSystem, base: CountedSystem, most: int = MAX_ROUNDS, clock: Callable[[], float] = time.monotonic
) -> Rounds:
    """Counts every case on both trees, `most` times or as often as `ROUNDS_SECONDS` allow, but `MIN_ROUNDS` times."""
    rounds: Rounds = {name: [] for name in (IDLE, *(case.name for case in CASES))}
    with ThreadPoolExecutor(2) as both:
        list(both.map(CountedSystem.start, (this, base)))
        for _ in within(ROUNDS_SECONDS, MIN_ROUNDS, most, clock):
            for name, pairs in rounds.items():
                in_this, in_base = both.map(lambda system, name=name: system.count(name), (this, base))
                pairs.append((in_this, in_base))
    return rounds


def figures(rounds: Rounds) -> dict[str, Figure]:
    """Returns instructions a turn of each process and of both together, for each case."""
    idle = idle_rate([count for pair in rounds[IDLE] for count in pair])
    found = {}
    for name, pairs in rounds.items():
        if name == IDLE:
            continue
        costs = [(a_turn(this, idle), a_turn(base, idle)) for this, base in pairs]
        for part in (*PARTS, "both"):
            ours, theirs = [this[part] for this, _ in costs], [base[part] for _, base in costs]
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            found[f"{name}: {part}"] = Figure(ratios, statistics.median(ours), statistics.median(theirs))
    return found


def a_turn(count: Count, idle: dict[str, float]) -> dict[str, float]:
    """Returns instructions a turn of each process and of both, without the `idle` ones of a second."""
    costs = {part: (all_.instructions - idle[part] * all_.seconds) / count.turns for part, all_ in count.taken.items()}
    return costs | {"both": sum(costs.values())}


def table(found: dict[str, Figure]) -> str:
    """Returns the figures as text."""
    lines = [f"{'instructions a turn':38}{'this':>11}{'base':>11}   this : base  (least .. most)", ""]
    for name, figure in found.items():
        middle, low, high = median_and_spread(figure.ratios)
        absolute = f"{figure.this / 1e3:9.0f} k{figure.base / 1e3:9.0f} k"
        lines.append(f"{name:38}{absolute}   {middle:11.3f}  ({low:.3f} .. {high:.3f})")
    return "\n".join(lines)


def idle_rate(counts: list[Count]) -> dict[str, float]:
    """Returns instructions a second of each process that has nothing to do."""
    taken = {part: [count.taken[part] for count in counts] for part in PARTS}
    return {
        part: sum(one.instructions for one in all_) / sum(one.seconds for one in all_) for part, all_ in taken.items()
    }


def _dumps(folder: Path, module: str) -> Path:
    return folder / f"{module}.callgrind"
