"""The capacity table is a calculation that can be followed by hand."""

import json
import subprocess
import sys

import pytest
from benchmarks.capacity import REFERENCE, Costs, Load, needs, table

from tests.deploy.engine import ROOT

COSTS = Costs(
    gateway=2.0, session=1.0, redis=0.5, session_bytes=8000, gateway_bytes=90e6, session_svc_bytes=70e6
)  # fmt: skip
HOURLY = Load(sessions=864_000, turns=10, peak=2.0, answer=5.0, idle=1750.0)


def test_a_load_needs_what_its_turns_cost() -> None:
    assert HOURLY.turns_at_peak == pytest.approx(200)
    found = needs(HOURLY, COSTS, busy=0.5)
    assert (found.gateways, found.session_svcs, found.primaries_for_cpu) == (1, 1, 1)
    assert found.turns_at_once_a_gateway == 1000
    ten_times = needs(Load(sessions=8_640_000, peak=2.0, idle=1750.0), COSTS, busy=0.5)
    assert (ten_times.gateways, ten_times.session_svcs, ten_times.primaries_for_cpu) == (8, 4, 2)


def test_sessions_are_alive_while_they_are_talked_in_and_idle() -> None:
    assert HOURLY.sessions_alive == pytest.approx(10 * 2 * 1800)
    day = Load(sessions=864_000, peak=2.0, answer=0.0, idle=86_400)
    assert day.sessions_alive == pytest.approx(864_000 + 36_000), "the busiest hour is one hour"
    assert needs(HOURLY, COSTS, busy=0.5).redis_bytes == pytest.approx(36_000 * 8000)


def test_costs_are_the_measured_ones() -> None:
    rows = {row["name"]: row["median"] for row in json.loads(REFERENCE.read_text())["rows"]}
    streamed, plain = Costs.measured(rows, streamed=True), Costs.measured(rows, streamed=False)
    assert plain.gateway == rows["  of the CPU a turn: gateway"]
    assert streamed.gateway + streamed.session + streamed.redis == pytest.approx(
        rows["CPU a turn, 32 pieces 5 ms apart"]
    )
    assert plain.session_bytes == rows["idle session in Redis"] * 1024
    assert "| sessions alive |" in table(Load(), plain, busy=0.7)


def test_the_runbook_holds_what_the_command_prints() -> None:
    page = (ROOT / "docs/operations/scaling.md").read_text()
    command = [sys.executable, "-m", "benchmarks.capacity"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=180).stdout
    rows = [line for line in printed.splitlines() if line.startswith("| ") and line.strip("| ")]
    assert rows
    assert [row for row in rows if row not in page] == []
