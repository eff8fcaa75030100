"""`python -m tests.faults.history --seconds 600 --seed 1`: the long run; exit code 1 when something is wrong."""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.history.run import Scenario, run
from tests.faults.history.story import report


def main() -> int:
    """Run once and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.history", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long clients run and faults are made")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="the plan of faults and turns")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--sessions", type=int, default=3, help="lasting ones in use at a time")
    parser.add_argument("--pace", type=float, default=1.0, help="mean seconds between faults of services; 0: no faults")
    parser.add_argument("--min-faults", type=int, help="fail when fewer were made (default: one in three seconds)")
    parser.add_argument("--logs", type=Path, help="keep the services' logs in this folder")
    options = parser.parse_args()
    scenario = Scenario(
        seed=options.seed,
        seconds=options.seconds,
        clients=options.clients,
        sessions=options.sessions,
        pace=options.pace,
    )
    print(f"history: seed {scenario.seed}, {scenario.seconds:g} s", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="parley-history-", ignore_cleanup_errors=True) as folder:
        try:
            result = asyncio.run(run(scenario, Path(folder)))
        finally:
            if options.logs is not None:
                _keep_logs(Path(folder), options.logs)
        text = report(result)
    print(text)
    print(f"took {time.monotonic() - began:.0f} s")
    least = options.min_faults
    if least is None:
        least = int(options.seconds / 3) if options.pace > 0 else 0
    if len(result.history.faults) < least:
        print(f"only {len(result.history.faults)} faults were made")
        return 1
    return 1 if result.anomalies else 0


def _keep_logs(folder: Path, kept: Path) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        shutil.copy(log, kept)


if __name__ == "__main__":
    sys.exit(main())
