"""`make fuzz [SECONDS=60] [ARGS=sse]`: every target of tests/fuzz for so long; exit code 1 when one fails."""

import argparse
import sys
import time
import traceback

from hypothesis import HealthCheck, given, settings

from tests.fuzz.targets import TARGETS, Target

BATCH = 500


def fuzz(target: Target, seconds: float) -> int:
    """Run a target for about so long; returns how many inputs it had. Raises what it raises, for the least input."""
    count = 0

    def counted(data: object) -> None:
        nonlocal count
        count += 1
        target.check(data)

    run = settings(max_examples=BATCH, deadline=None, database=None, suppress_health_check=list(HealthCheck))(
        given(target.inputs)(counted)
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run()
    return count


def main() -> int:
    """Run the targets that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each of them runs")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    failed = False
    for name in options.targets or TARGETS:
        try:
            print(f"{name}: {fuzz(TARGETS[name], options.seconds)} inputs, none failed", flush=True)
        except Exception:
            failed = True
            print(f"{name}: failed\n{traceback.format_exc()}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
