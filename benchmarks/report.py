"""Figures against budgets: the rows of the table, and what the JSON says."""

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.driver import Result
from benchmarks.first_paint import Appearance
from benchmarks.measures import (
    FIRST_TOKEN,
    LATENCY,
    THROUGHPUT,
    THROUGHPUT_STREAM,
    Growth,
    IdleSession,
    median_and_spread,
    turn_cpu,
)

Pairs = dict[str, list[tuple[Result, Result]]]

MEMORY_MB = {"config_svc": 110.0, "session_svc": 80.0, "chat_gateway": 110.0}
"""What a service may hold in memory: enough for kept libraries outside of a turn's path."""
IDLE_CPU_PERCENT = 1.5
"""Of one core."""

FIRST_PAINT = "console, first paint"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of the table, with the budgets that it is measured by."""

    name: str
    unit: str
    values: list[float]
    first: float | None = None
    second: float | None = None
    at_least: bool = False

    @property
    def median(self) -> float:
        """What counts."""
        return median_and_spread(self.values)[0]

    @property
    def spread(self) -> tuple[float, float]:
        """Least and greatest."""
        return min(self.values), max(self.values)

    def meets(self, budget: float | None) -> bool | None:
        """Tells whether a budget is met; None where there is none."""
        if budget is None:
            return None
        return self.median >= budget if self.at_least else self.median <= budget


def rows_of_turns(pairs: Pairs) -> list[Row]:
    """Returns what a turn costs in time."""
    plain, streamed = pairs[THROUGHPUT.name], pairs[THROUGHPUT_STREAM.name]
    paced = pairs[FIRST_TOKEN.name]
    rows = [
        Row("CPU a turn, 32 at once", "ms", [turn_cpu(ours) for ours, _ in plain], 1.6, 1.2),
        Row("CPU a turn, 32 at once, streamed", "ms", [turn_cpu(ours) for ours, _ in streamed], 2.2, 1.2),
        Row("CPU a turn, 32 pieces 5 ms apart", "ms", [turn_cpu(ours) for ours, _ in paced]),
        Row("latency added, one at a time", "ms", _added(pairs[LATENCY.name], "latency_ms"), 3.1, 2.5),
        Row("first token added, 16 at once", "ms", _added(paced, "first_token_ms"), 10.0),
        Row("turns a second", "/s", [ours.turns / ours.seconds for ours, _ in plain], 1080.0, 1500.0, at_least=True),
    ]
    rows += [
        Row(f"  of the CPU a turn: {part}", "ms", [ours.cpu_ms[part] for ours, _ in plain])
        for part in ("gateway", "session_svc", "redis")
    ]
    floor = [floor.turns / floor.seconds for _, floor in plain]
    rows.append(Row("  floor: turns a second straight at the mock", "/s", floor))
    rows.append(Row("  floor: latency, one at a time", "ms", [floor.latency_ms for _, floor in pairs[LATENCY.name]]))
    rows.append(Row("  yardstick: CPU of the mock a turn, on the floor", "ms", [f.cpu_ms["mock"] for _, f in plain]))
    rows.append(Row("  disturbance: cores used by others", "", [ours.other_cores for ours, _ in plain]))
    return rows


def rows_of_growth(growth: Growth) -> list[Row]:
    """Returns what turn 1000 costs against turn 10."""
    return [
        Row("turn 1000 : turn 10, latency", "times", growth.latency_ratios, 1.1),
        Row("turn 1000 : turn 10, CPU", "times", growth.cpu_ratios, 1.1),
    ]


def rows_of_tools(steps: dict[int, list[float]], journals: list[float]) -> list[Row]:
    """Returns what a call of a tool costs, with the model call that reads its result, and what a journal does.

    The budget is for as many turns at once as that of a turn's CPU.
    """
    at_once = THROUGHPUT.concurrency
    return [
        Row(f"CPU a tool step, {at_once} at once", "ms", steps[at_once], 3.0),
        *(Row(f"  CPU a tool step, {n} at once", "ms", found) for n, found in steps.items() if n != at_once),
        Row("turn with a journal : without, CPU, streamed", "times", journals, 1.5),
    ]


def rows_of_idle_cpu(at_rest: dict[str, float]) -> list[Row]:
    """Returns what the services need with nobody calling."""
    rows = [Row("idle CPU, all three services", "%", [sum(at_rest.values())], IDLE_CPU_PERCENT)]
    return rows + [Row(f"  of it, {name}", "%", [percent]) for name, percent in at_rest.items()]


def rows_of_memory(
    idle: IdleSession,
    resident: dict[str, tuple[float, float]],
    without_tools: float,
    instance: float,
    starts: dict[str, list[float]],
) -> list[Row]:
    """Returns what is held in memory, and how long a start takes."""
    rows = [
        Row("idle session in Redis", "KB", [idle.used_memory / 1024], 7.0),
        Row("  of it, its own keys", "KB", [idle.own_keys / 1024]),
        Row("cached agent instance", "KB", [instance / 1024], 5.0),
    ]
    rows += [Row(f"resident memory, {name}", "MB", [now], MEMORY_MB[name]) for name, (now, _) in resident.items()]
    rows.append(Row("  chat_gateway before it used any tool", "MB", [without_tools]))
    rows += [Row(f"start of {name}", "s", seconds) for name, seconds in starts.items()]
    return rows


def rows_of_console(shown: list[Appearance]) -> list[Row]:
    """Returns how soon the console appears; no rows where there was no browser."""
    if not shown:
        return []
    return [
        Row(FIRST_PAINT, "ms", [one.first_paint_ms for one in shown], 1000.0),
        Row("  console, ready for a message", "ms", [one.usable_ms for one in shown]),
    ]


def table(rows: list[Row]) -> str:
    """Returns the table as text."""
    lines = [f"{'':48}{'median':>9} {'':5} {'(least .. most)':>20}  {'budget':>8}  {'then':>6}", ""]
    for row in rows:
        low, high = row.spread
        between = f"({_number(low)} .. {_number(high)})" if len(row.values) > 1 else ""
        lines.append(
            f"{row.name:48}{_number(row.median):>9} {row.unit:5} {between:>20}  "
            f"{_budget(row, row.first):>8}  {_budget(row, row.second):>6}".rstrip()
        )
    return "\n".join(lines)


def as_json(rows: list[Row], pairs: Pairs, growth: Growth, about: dict[str, Any]) -> dict[str, Any]:
    """Returns everything that was measured."""
    return {
        **about,
        "rows": [
            {
                **asdict(row),
                "median": row.median,
                "meets_first": row.meets(row.first),
                "meets_second": row.meets(row.second),
            }
            for row in rows
        ],
        "points": {
            name: [{"system": _plain(ours), "floor": _plain(floor)} for ours, floor in both]
            for name, both in pairs.items()
        },
        "growth_curve": growth.curve,
    }


def _added(pairs: list[tuple[Result, Result]], what: str) -> list[float]:
    return [getattr(ours, what) - getattr(floor, what) for ours, floor in pairs]


def _plain(result: Result) -> dict[str, Any]:
    return {name: getattr(result, name) for name in result.__struct_fields__}


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _budget(row: Row, budget: float | None) -> str:
    if budget is None:
        return ""
    return f"{budget:g} {'ok' if row.meets(budget) else 'NO'}"
