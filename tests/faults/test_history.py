"""Many clients, many faults: no turn is lost, doubled, mixed or half stored. And the checker can fail.

`python -m tests.faults.history --seconds 600` is the long run of the same.
"""

import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.history.checker import Kind
from tests.faults.history.decisions import DECIDED, decisions
from tests.faults.history.records import Ending, History
from tests.faults.history.run import Result, Scenario, run
from tests.faults.history.slots import AGENT, TOOLED_AGENT
from tests.faults.history.story import report
from tests.faults.history.tool_server import CHARGE, READ

SECONDS = 20.0
MAX_RUNS = 5
MIN_LASTING = 30
"""Acknowledged turns of sessions that nobody deletes: each of them must be stored."""


async def run_and_print(scenario: Scenario, folder: Path) -> Result:
    result = await run(scenario, folder)
    print(report(result))
    return result


async def test_no_fault_makes_an_anomaly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = secrets.randbelow(1_000_000)
    with capsys.disabled():
        print(f"\nhistory: seed {seed}", flush=True)
    scenario = Scenario(seed=seed, seconds=SECONDS, pace=0.7, enough=has_all_kinds)
    result = await run_and_print(scenario, tmp_path)
    assert not result.anomalies, f"seed {seed}: see the output, or run python -m tests.faults.history --seed {seed}"
    assert has_all_kinds(result.history), "a run of this length tries everything"
    assert decisions(result.history)[DECIDED[0]] >= MIN_LASTING


def has_all_kinds(history: History) -> bool:
    """Whether every kind of turn was acknowledged, and faults befell all that they are made on."""
    acknowledged = [operation for operation in history.operations if operation.acknowledgement]
    lasting = [one for one in acknowledged if one.agent in (AGENT, TOOLED_AGENT) and not one.session.startswith("d")]
    forks = {fork.id for fork in history.forks if fork.ending is Ending.ACKNOWLEDGED}
    return (
        len(history.faults) >= SECONDS / 3
        and any(fault.target.startswith("session") and ">" not in fault.target for fault in history.faults)
        and len(lasting) >= MIN_LASTING
        and {operation.edge for operation in acknowledged} == {"http", "grpc"}
        and any(operation.session in forks for operation in acknowledged)
        and any(operation.transcript for operation in acknowledged)
        and any(operation.agent == TOOLED_AGENT for operation in acknowledged)
        and {execution.tool for execution in history.executions} >= {READ, CHARGE}
    )


async def found_in(wanted: set[Kind], scenario: Scenario, folder: Path) -> list[Result]:
    """Run a scenario until all that is wanted was found, each time with another seed; return the runs.

    The faults are the process's own, in every turn or in one of a few, so that the first run has them nearly always.
    """
    results: list[Result] = []
    found: set[Kind] = set()
    for seed in range(1, MAX_RUNS + 1):
        (run_folder := folder / str(seed)).mkdir()
        results.append(await run_and_print(replace(scenario, seed=seed), run_folder))
        found |= {anomaly.kind for anomaly in results[-1].anomalies}
        if wanted <= found:
            return results
    raise AssertionError(f"only {found} of {wanted} in {MAX_RUNS} runs")


async def test_the_checker_notices_that_fencing_is_off(tmp_path: Path) -> None:
    """With leases that are shorter than many an answer, turns overtake each other without any fault of a part."""
    entry = "tests.faults.history.without_fencing"
    leases = {"PARLEY_SESSION_LEASE": "0.2"}
    scenario = Scenario(seed=1, seconds=3, pace=0, session_entry=entry, session_settings=leases, quiet_phases=False)
    await found_in({Kind.OTHER_HISTORY}, scenario, tmp_path)


async def test_the_checker_notices_calls_of_tools_that_are_made_again(tmp_path: Path) -> None:
    entry = "tests.faults.history.repeats_calls"
    scenario = Scenario(seed=1, seconds=6, pace=0, gateway_entry=entry, quiet_phases=False)
    for result in await found_in({Kind.CALL_REPEATED}, scenario, tmp_path):
        assert {anomaly.kind for anomaly in result.anomalies} <= {Kind.CALL_REPEATED}, "nothing else is wrong"


async def test_the_checker_notices_sessions_that_are_neither_deleted_nor_expire(tmp_path: Path) -> None:
    scenario = Scenario(seed=1, seconds=6, pace=0, session_entry="tests.faults.history.immortal_sessions")
    await found_in({Kind.RETURNED, Kind.CONTINUED, Kind.DEAD_LISTED}, scenario, tmp_path)


async def test_the_checker_notices_an_answer_before_the_commit(tmp_path: Path) -> None:
    entry = "tests.faults.history.answers_before_commit"
    scenario = Scenario(seed=1, seconds=3, pace=0, gateway_entry=entry, quiet_phases=False)
    results = await found_in({Kind.LOST}, scenario, tmp_path)
    lost = [anomaly for result in results for anomaly in result.anomalies if anomaly.kind is Kind.LOST]
    operations = [operation for result in results for operation in result.history.operations]
    acknowledged = [operation for operation in operations if operation.acknowledgement]
    assert len(lost) < len(acknowledged), "late, not never: most are stored"
