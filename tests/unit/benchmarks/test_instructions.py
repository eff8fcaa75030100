import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from benchmarks import callgrind, instructions
from benchmarks.callgrind import Counter, Taken, instructions_in
from benchmarks.instructions import IDLE, Count, a_turn, figures
from benchmarks.system import ROOT, BenchmarkFailed

DUMP = Path(__file__).with_name("callgrind.dump").read_text()
"""A dump of callgrind 3.19 in its own words, with the functions left out."""
LOOPING = Path(__file__).with_name("looping.py")
ROUNDS = 2_000


def test_a_dump_tells_its_instructions() -> None:
    assert instructions_in(DUMP) == 24749


def test_a_dump_that_is_cut_is_refused() -> None:
    with pytest.raises(BenchmarkFailed, match="no end"):
        instructions_in(DUMP.partition("totals:")[0])


def test_a_dump_of_other_events_is_refused() -> None:
    with pytest.raises(BenchmarkFailed, match="something else"):
        instructions_in(DUMP.replace("events: Ir", "events: Ir Dr Dw"))


def count(turns: int, gateway: int, session_svc: int, seconds: float = 2.0) -> Count:
    return Count(turns, {"gateway": Taken(gateway, seconds), "session_svc": Taken(session_svc, 2 * seconds)})


def test_a_turn_costs_what_the_idle_process_would_not_have_done() -> None:
    assert a_turn(count(10, 5_000, 9_000), {"gateway": 500.0, "session_svc": 1_000.0}) == {
        "gateway": 400.0,
        "session_svc": 500.0,
        "both": 900.0,
    }


def test_ratios_are_those_of_each_round_and_one_idle_rate_is_taken_off_of_both() -> None:
    quiet, busy = count(0, 0, 0), count(0, 2_000, 0)
    rounds = {
        IDLE: [(quiet, busy), (busy, quiet)],  # 500 a second in the gateway
        "alone": [
            (count(10, 2_000, 1_000), count(10, 3_000, 1_000)),
            (count(10, 5_000, 1_000), count(10, 3_000, 2_000)),
        ],
    }

    found = figures(rounds)

    assert found["alone: gateway"].ratios == [0.5, 2.0]
    assert (found["alone: gateway"].this, found["alone: gateway"].base) == (250.0, 200.0)
    assert found["alone: session_svc"].ratios == [1.0, 0.5]
    assert found["alone: both"].ratios == [pytest.approx(2 / 3), pytest.approx(5 / 4)]
    assert "0.500 .. 2.000" in instructions.table(found)


@pytest.mark.slow
def test_without_valgrind_the_comparison_says_what_to_install_and_ends_with_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", "HEAD", "--instructions"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert "install its package (apt-get install valgrind" in done.stderr
    assert done.stderr.count("\n") == 1


@contextmanager
def looping(dumps: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the loop under callgrind."""
    command = [*callgrind.command(dumps), sys.executable, "-I", "-S", str(LOOPING)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": "0"}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def work(process: subprocess.Popen[str], rounds: int) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{rounds}\n")
    process.stdin.flush()
    assert process.stdout.readline().strip().isdigit()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="counts by valgrind, which is not installed")
def test_twice_the_work_is_the_same_number_of_instructions_more_in_each_run(tmp_path: Path) -> None:
    with ExitStack() as stack:
        runs = [(stack.enter_context(looping(tmp_path / name)), tmp_path / name) for name in ("one", "two")]
        more = []
        for process, dumps in runs:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            counter = Counter(process.pid, dumps)
            counter.start()
            work(process, ROUNDS)  # callgrind's first sight of the code
            counter.take()
            work(process, ROUNDS)
            once = counter.take().instructions
            work(process, 2 * ROUNDS)
            more.append(counter.take().instructions - once)

    assert more[0] > 100 * ROUNDS
    assert more[1] == pytest.approx(more[0], rel=0.005)
