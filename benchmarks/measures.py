"""The measurements themselves: each returns plain figures, taken next to their floor where they have one."""

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import redis

from benchmarks import procfs
from benchmarks.conversation import Profile
from benchmarks.driver import Plan, Result, Step, Target
from benchmarks.repeats import within
from benchmarks.system import ROOT, BenchmarkFailed, MockProcess, System, drive

TURNS = 10
EVERYTHING = 100
"""A window, in messages, that ten turns never fill."""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent of the benchmark and how its model behaves."""

    id: str
    profile: Profile
    max_messages: int = EVERYTHING


FAST = Agent("fast", Profile())
SLOW_CHUNKS = Agent("slow-chunks", Profile(chunk_delay=5))
WINDOWED = Agent("windowed", Profile(window=20), max_messages=20)
LONG = Agent("long-messages", Profile(reply_bytes=300))
TOOLS = Agent("tools", Profile())
"""Every turn of it calls a tool of an MCP server, once."""
AGENTS = (FAST, SLOW_CHUNKS, WINDOWED, LONG)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: repeats, seconds of each point, sessions of the growth and memory measurements.

    There are fewer than `repeats`, but never fewer than `min_repeats`, when they would take more than
    `repeats_seconds` together, as they do on a machine that others use, too.
    """

    repeats: int
    min_repeats: int
    repeats_seconds: float
    seconds: float
    warm: float
    growth_sessions: int
    growth_rounds: int
    idle_sessions: int
    idle_seconds: float
    starts: int


FULL = Effort(
    repeats=6,
    min_repeats=4,
    repeats_seconds=340.0,
    seconds=4.0,
    warm=1.0,
    growth_sessions=16,
    growth_rounds=12,
    idle_sessions=3000,  # the tables of the indexes are as full then as on average
    idle_seconds=30.0,
    starts=5,
)
QUICK = Effort(
    repeats=2,
    min_repeats=2,
    repeats_seconds=60.0,
    seconds=1.5,
    warm=0.5,
    growth_sessions=6,
    growth_rounds=6,
    idle_sessions=300,
    idle_seconds=10.0,
    starts=1,
)


@dataclass(frozen=True, slots=True)
class Case:
    """One point that is measured on the system and on the floor."""

    name: str
    agent: Agent
    concurrency: int
    stream: bool


THROUGHPUT = Case("throughput", FAST, 32, stream=False)
THROUGHPUT_STREAM = Case("throughput, stream", FAST, 32, stream=True)
LATENCY = Case("latency", FAST, 1, stream=False)
FIRST_TOKEN = Case("first token", SLOW_CHUNKS, 16, stream=True)
CASES = (THROUGHPUT, THROUGHPUT_STREAM, LATENCY, FIRST_TOKEN)
TOOL_TURN = Case("8 at once, a tool", TOOLS, 8, stream=False)
"""Has no floor: the mock answers a model's calls only."""


class Bench:
    """A running system and its mock; hands out session numbers that are never used twice."""

    def __init__(self, system: System, mock: MockProcess, sessions: Iterator[int] | None = None) -> None:
        self.system = system
        self.mock = mock
        self._blocks = sessions or itertools.count(1_000_000, 1_000_000)

    def block(self) -> int:
        """Returns the first of a million unused session numbers."""
        return next(self._blocks) % 100_000_000

    def point(self, case: Case, effort: Effort, *, floor: bool = False, resumable: bool = False) -> Result:
        """Measures a case on the system, or straight at the mock."""
        step = Step(case.name, case.concurrency, TURNS, self.block(), warm=effort.warm, seconds=effort.seconds)
        return self.run(case.agent, [step], stream=case.stream, floor=floor, resumable=resumable)[0]

    def run(
        self,
        agent: Agent,
        steps: list[Step],
        *,
        stream: bool = False,
        floor: bool = False,
        resumable: bool = False,
        user_bytes: int = 110,
    ) -> list[Result]:
        """Drive steps and check that every prompt was right."""
        port = self.mock.port if floor else self.system.http_port
        target = Target(port, agent.profile.name, agent.id, direct=floor, resumable=resumable)
        pids = {**self.system.pids, "mock": self.mock.pid}
        results = drive(Plan(target, stream, steps, pids, user_bytes))
        self.mock.check()
        return results


def check_the_checks(bench: Bench) -> None:
    """Prove that a lost history would be seen: turns without one, sent to the mock, must be faults."""
    step = Step("no history", 1, 3, bench.block(), sessions=1)
    bench.mock.reset()
    agent = Agent(FAST.profile.name, FAST.profile)
    drive(Plan(Target(bench.mock.port, FAST.profile.name, agent.id), False, [step]))
    if bench.mock.log()["faults"] != 3:
        raise BenchmarkFailed("the mock model does not notice a missing history")
    bench.mock.reset()


def interleaved(bench: Bench, effort: Effort, report: Callable[[str], None]) -> dict[str, list[tuple[Result, Result]]]:
    """Measures every case and its floor, one after the other, as often as `effort` allows, in pairs."""
    pairs: dict[str, list[tuple[Result, Result]]] = {case.name: [] for case in CASES}
    for number in within(effort.repeats_seconds, effort.min_repeats, effort.repeats):
        report(f"repeat {number + 1} of {effort.repeats}")
        for case in CASES:
            floor = bench.point(case, effort, floor=True)
            pairs[case.name].append((bench.point(case, effort), floor))
    return pairs


def tool_steps(bench: Bench, effort: Effort, url: str) -> dict[int, list[float]]:
    """Returns what a step with a call of an MCP server adds to the CPU of a turn, in ms, by how many turns at once."""
    create_agent_with_tools(bench.system, url)
    # The SDK is loaded, and the connection made, once; that takes the time that it takes.
    bench.run(TOOLS, [Step("first calls", 8, TURNS, bench.block(), sessions=16)])
    steps: dict[int, list[float]] = {THROUGHPUT.concurrency: [], TOOL_TURN.concurrency: []}
    for _, (at_once, found) in itertools.product(range(effort.min_repeats), steps.items()):
        with_tool = bench.point(replace(TOOL_TURN, concurrency=at_once), effort)
        without = bench.point(replace(THROUGHPUT, concurrency=at_once), effort)
        found.append(turn_cpu(with_tool) - turn_cpu(without))
    return steps


def create_agent_with_tools(system: System, url: str) -> None:
    """Creates the agent `TOOLS`; the MCP server at `url` has its tool."""
    system.create_tool_server("bench", url)
    tools = [{"mcp": {"tool_server": "bench"}}]
    system.create_agent(TOOLS.id, TOOLS.profile, TOOLS.max_messages, tools=tools)


def journals(bench: Bench, effort: Effort) -> list[float]:
    """Returns the CPU of a streamed turn that keeps a journal over that of one that keeps none: 8 turns at once."""
    case = Case("journal", FAST, 8, stream=True)
    bench.point(case, effort, resumable=True)
    return [
        turn_cpu(bench.point(case, effort, resumable=True)) / turn_cpu(bench.point(case, effort))
        for _ in range(effort.min_repeats)
    ]


@dataclass(frozen=True, slots=True)
class Growth:
    """What turn 1000 costs against turn 10, as ratios of medians per round, and the curve on the way there."""

    latency_ratios: list[float]
    cpu_ratios: list[float]
    curve: list[tuple[int, float, float]]
    """Last turn of a step, median latency in ms, CPU in ms a turn; all sessions at once."""


TO_TURN = 995
CURVE_STEP = 50


def growth(bench: Bench, effort: Effort) -> Growth:
    """Play sessions to turn 995, then compare ten of their turns with turns 6 to 15 of new ones, alternating.

    One turn at a time, on an agent whose window is 20 messages.
    """
    sessions, old, young = effort.growth_sessions, bench.block(), bench.block()
    filling = [
        Step("fill", sessions, min(CURVE_STEP, TO_TURN - done), old, sessions=sessions, first_turn=done + 1)
        for done in range(0, TO_TURN, CURVE_STEP)
    ]
    steps = list(filling)
    for number in range(effort.growth_rounds):
        first = young + number * sessions
        steps += [
            Step("begin", sessions, 5, first, sessions=sessions),
            Step("young", 1, TURNS, first, sessions=sessions, first_turn=6),
            Step("old", 1, TURNS, old, sessions=sessions, first_turn=TO_TURN + 1 + number * TURNS),
        ]
    results = bench.run(WINDOWED, steps)
    youngs = [result for result in results if result.name == "young"]
    olds = [result for result in results if result.name == "old"]
    curve = [
        (step.first_turn + step.turns - 1, result.latency_ms, turn_cpu(result))
        for step, result in zip(filling, results[: len(filling)], strict=True)
    ]
    return Growth(
        [o.latency_ms / y.latency_ms for o, y in zip(olds, youngs, strict=True)],
        [turn_cpu(o) / turn_cpu(y) for o, y in zip(olds, youngs, strict=True)],
        curve,
    )


def turn_cpu(result: Result) -> float:
    """Returns the CPU time of a turn in ms: gateway, session_svc and Redis."""
    return sum(result.cpu_ms[name] for name in ("gateway", "session_svc", "redis"))


@dataclass(frozen=True, slots=True)
class IdleSession:
    """Bytes in Redis of one session with 20 messages of 300 bytes."""

    used_memory: float
    """The growth of `used_memory` by many such sessions, for each: indexes and the tables of keys included."""
    own_keys: float
    """MEMORY USAGE of its own keys."""


def idle_session(bench: Bench, effort: Effort) -> IdleSession:
    """Play many sessions of ten turns and see what they take once they are idle."""
    with redis.Redis.from_url(bench.system.redis.url) as client:
        first = bench.block()
        # The first sessions make what is there once (indexes, buffers, scripts).
        bench.run(LONG, [Step("some", 16, TURNS, first + 500_000, sessions=32)], user_bytes=300)
        before, keys, _ = _used_memory(client)
        step = Step("sessions", 16, TURNS, first, sessions=effort.idle_sessions)
        bench.run(LONG, [step], user_bytes=300)
        after, keys_after, tables = _used_memory(client)
        # A table doubles now and then. Whether it does in this minute must not count, what it takes of each key must.
        grown = after - before + (keys_after - keys) * tables / keys_after
        sample = range(first, first + min(50, effort.idle_sessions))
        own = [_own_keys(client, session) for session in sample]
    return IdleSession(grown / effort.idle_sessions, statistics.mean(own))


def _used_memory(client: redis.Redis) -> tuple[int, int, int]:
    """Returns `used_memory`, the number of keys, and the size of the tables that they are found by.

    The first is without those tables, and without what the append-only file and the clients have buffered just now.
    """
    info, stats = client.info("memory"), client.memory_stats()
    tables = sum(stats["db.0"].values())
    used = int(info["used_memory"]) - int(info["mem_aof_buffer"]) - int(info["mem_clients_normal"])
    return used - tables, client.dbsize(), tables


def _own_keys(client: redis.Redis, session: int) -> int:
    tag = f"{{default:bench-{session:08d}}}"
    names = (f"{tag}:{part}" for part in ("meta", "turns", "replay", "queue"))
    return sum(int(client.memory_usage(name, samples=0) or 0) for name in names)


def instance_bytes() -> float:
    """Returns the bytes of one cached agent instance, measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.instances"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return float(done.stdout)


def resident_memory(system: System) -> dict[str, tuple[float, float]]:
    """Returns resident memory now and at most, in MB, of each service."""
    return {name: procfs.memory_mb(service.pid) for name, service in system.services.items()}


def idle_cpu(system: System, effort: Effort) -> dict[str, float]:
    """Returns the CPU of each service with nobody calling, in percent of a core."""
    pids = {name: service.pid for name, service in system.services.items()}
    time.sleep(effort.warm)
    begin, before = time.perf_counter(), procfs.cpu_of(pids)
    time.sleep(effort.idle_seconds)
    seconds, after = time.perf_counter() - begin, procfs.cpu_of(pids)
    return {name: 100 * (after[name] - before[name]) / seconds for name in pids}


def median_and_spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns median, least and greatest."""
    return statistics.median(values), min(values), max(values)
