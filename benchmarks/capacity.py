"""What a load needs, from the measured costs: `python -m benchmarks.capacity [--sessions 10000000 --turns 10 ...]`.

Replicas, cores and memory by calculation: what one turn and one session cost stands in benchmarks/reference.json, what
the load is in the arguments. Nothing here is measured at that load.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REFERENCE = Path(__file__).with_name("reference.json")
SECONDS_A_DAY = 86_400
SECONDS_AN_HOUR = 3600
KB, MB, GB = 1024, 1024**2, 1024**3
"""As in the table of `make bench`."""


@dataclass(frozen=True, slots=True)
class Load:
    """A day's load; `peak` is the busiest hour over the mean, `answer` and `idle` are seconds."""

    sessions: int = 10_000_000
    turns: int = 10
    peak: float = 3.0
    answer: float = 5.0
    idle: float = 1800.0
    streamed: bool = True

    @property
    def turns_at_peak(self) -> float:
        """Turns a second in the busiest hour."""
        return self.sessions * self.turns / SECONDS_A_DAY * self.peak

    @property
    def sessions_alive(self) -> float:
        """Sessions that Redis holds at the end of the busiest hour: one lives while it is talked in, and then idle."""
        life = self.turns * self.answer + self.idle
        busiest = min(life, SECONDS_AN_HOUR)
        return self.sessions / SECONDS_A_DAY * (self.peak * busiest + life - busiest)


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured: milliseconds of CPU a turn, bytes a session, bytes a process."""

    gateway: float
    session: float
    redis: float
    session_bytes: float
    gateway_bytes: float
    session_svc_bytes: float

    @classmethod
    def measured(cls, rows: Mapping[str, float], *, streamed: bool) -> "Costs":
        """Takes them from the medians of a run. A streamed turn costs its gateway what it costs more as a whole."""
        session, redis = rows["  of the CPU a turn: session_svc"], rows["  of the CPU a turn: redis"]
        gateway = rows["CPU a turn, 32 pieces 5 ms apart"] - session - redis
        return cls(
            gateway=gateway if streamed else rows["  of the CPU a turn: gateway"],
            session=session,
            redis=redis,
            session_bytes=rows["idle session in Redis"] * KB,
            gateway_bytes=rows["resident memory, chat_gateway"] * MB,
            session_svc_bytes=rows["resident memory, session_svc"] * MB,
        )


@dataclass(frozen=True, slots=True)
class Needs:
    """What the load needs in its busiest hour."""

    gateways: int
    turns_at_once_a_gateway: int
    session_svcs: int
    primaries_for_cpu: int
    redis_bytes: float


def needs(load: Load, costs: Costs, busy: float) -> Needs:
    """Returns what a load needs when no process is to be busier than `busy` of a core."""
    rate = load.turns_at_peak
    gateways = math.ceil(rate * costs.gateway / 1000 / busy)
    return Needs(
        gateways=gateways,
        turns_at_once_a_gateway=math.ceil(rate * load.answer / gateways),
        session_svcs=math.ceil(rate * costs.session / 1000 / busy),
        primaries_for_cpu=math.ceil(rate * costs.redis / 1000 / busy),
        redis_bytes=load.sessions_alive * costs.session_bytes,
    )


def table(load: Load, costs: Costs, busy: float) -> str:
    """Returns the calculation as a Markdown table."""
    found = needs(load, costs, busy)
    gigabytes = found.redis_bytes / GB
    rows = [
        ("turns a second, mean and peak", f"{load.turns_at_peak / load.peak:,.0f} and {load.turns_at_peak:,.0f}"),
        ("gateways, one core each", f"{found.gateways} ({costs.gateway:.2f} ms of CPU a turn)"),
        ("turns at once a gateway", f"{found.turns_at_once_a_gateway}"),
        ("session_svc, one core each", f"{found.session_svcs} ({costs.session:.2f} ms)"),
        ("Redis primaries for the CPU alone", f"{found.primaries_for_cpu} ({costs.redis:.2f} ms)"),
        ("sessions alive", f"{load.sessions_alive:,.0f}"),
        ("Redis memory, without replicas", f"{gigabytes:,.1f} GB ({costs.session_bytes / KB:.2f} KB a session)"),
        ("memory of the gateways", f"{found.gateways * costs.gateway_bytes / GB:.1f} GB and what the turns hold"),
        ("memory of session_svc", f"{found.session_svcs * costs.session_svc_bytes / GB:.1f} GB"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def main() -> None:
    """Calculate by command line."""
    usual = Load()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=usual.sessions, help="a day (%(default)s)")
    parser.add_argument("--turns", type=int, default=usual.turns, help="of a session (%(default)s)")
    parser.add_argument("--peak", type=float, default=usual.peak, help="busiest hour over the mean (%(default)s)")
    parser.add_argument("--answer", type=float, default=usual.answer, help="seconds that a model takes (%(default)s)")
    parser.add_argument("--idle", type=float, default=usual.idle, help="idle TTL of a session, seconds (%(default)s)")
    parser.add_argument("--plain", action="store_true", help="answers in one piece; without it, 32 pieces, one by one")
    parser.add_argument("--busy", type=float, default=0.7, help="the most of a core that a process uses (%(default)s)")
    given = parser.parse_args()
    run = json.loads(REFERENCE.read_text())
    rows = {row["name"]: row["median"] for row in run["rows"]}
    load = Load(given.sessions, given.turns, given.peak, given.answer, given.idle, not given.plain)
    print(f"from the run of {run['time']}, revision {run['revision']}, {run['hardware']['processor']}\n")
    print(table(load, Costs.measured(rows, streamed=load.streamed), given.busy))


if __name__ == "__main__":
    main()
