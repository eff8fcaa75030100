"""Many clients, many faults: no turn is lost, doubled, mixed or half stored. And the checker can fail.

`python -m tests.faults.history --seconds 600` is the long run of the same.
"""

import secrets
from pathlib import Path

import pytest

from tests.faults.history.checker import Kind
from tests.faults.history.decisions import DECIDED, UNDECIDED, decisions
from tests.faults.history.records import Ending
from tests.faults.history.run import Result, Scenario, run
from tests.faults.history.slots import TOOLED_AGENT
from tests.faults.history.story import report
from tests.faults.history.tool_server import CHARGE, READ

SECONDS = 20.0


async def run_and_print(scenario: Scenario, folder: Path) -> Result:
    result = await run(scenario, folder)
    print(report(result))
    return result


async def test_no_fault_makes_an_anomaly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = secrets.randbelow(1_000_000)
    with capsys.disabled():
        print(f"\nhistory: seed {seed}", flush=True)
    result = await run_and_print(Scenario(seed=seed, seconds=SECONDS, pace=0.7), tmp_path)
    assert not result.anomalies, f"seed {seed}: see the output, or run python -m tests.faults.history --seed {seed}"
    assert len(result.history.faults) >= SECONDS / 3
    assert any(fault.target.startswith("session") and ">" not in fault.target for fault in result.history.faults)
    acknowledged = [operation for operation in result.history.operations if operation.acknowledgement]
    assert len(acknowledged) >= 50
    assert {operation.edge for operation in acknowledged} == {"http", "grpc"}
    forks = {fork.id for fork in result.history.forks if fork.ending is Ending.ACKNOWLEDGED}
    assert any(operation.session in forks for operation in acknowledged)
    assert any(operation.transcript for operation in acknowledged)
    assert any(operation.agent == TOOLED_AGENT for operation in acknowledged)
    assert {execution.tool for execution in result.history.executions} >= {READ, CHARGE}
    decided = decisions(result.history)
    assert sum(decided[what] for what in DECIDED) >= sum(decided[what] for what in UNDECIDED), decided


async def test_the_checker_notices_that_fencing_is_off(tmp_path: Path) -> None:
    entry = ["tests.faults.history.without_fencing"]
    scenario = Scenario(seed=1, seconds=8, pace=0.5, session_entry=entry, quiet_phases=False)
    result = await run_and_print(scenario, tmp_path)
    found = {anomaly.kind for anomaly in result.anomalies}
    assert found & {Kind.OTHER_HISTORY, Kind.DOUBLED, Kind.REFUSED_BUT_STORED}, found


async def test_the_checker_notices_calls_of_tools_that_are_made_again(tmp_path: Path) -> None:
    entry = ["tests.faults.history.repeats_calls"]
    scenario = Scenario(seed=1, seconds=6, pace=0, gateway_entry=entry, quiet_phases=False)
    result = await run_and_print(scenario, tmp_path)
    found = {anomaly.kind for anomaly in result.anomalies}
    assert found == {Kind.CALL_REPEATED}, found


async def test_the_checker_notices_sessions_that_are_neither_deleted_nor_expire(tmp_path: Path) -> None:
    scenario = Scenario(seed=1, seconds=6, pace=0, session_entry=["tests.faults.history.immortal_sessions"])
    result = await run_and_print(scenario, tmp_path)
    found = {anomaly.kind for anomaly in result.anomalies}
    assert {Kind.RETURNED, Kind.CONTINUED, Kind.DEAD_LISTED} <= found, found


async def test_the_checker_notices_an_answer_before_the_commit(tmp_path: Path) -> None:
    entry = ["tests.faults.history.answers_before_commit"]
    scenario = Scenario(seed=1, seconds=8, pace=0.5, gateway_entry=entry, quiet_phases=False)
    result = await run_and_print(scenario, tmp_path)
    found = {anomaly.kind for anomaly in result.anomalies}
    assert Kind.LOST in found, found
    lost = [anomaly for anomaly in result.anomalies if anomaly.kind is Kind.LOST]
    acknowledged = [operation for operation in result.history.operations if operation.acknowledgement]
    assert len(lost) < len(acknowledged) / 2, "late, not never: most are stored"
