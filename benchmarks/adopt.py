"""`python -m benchmarks.adopt results/FILE.json`: makes a run of `make bench` the reference, and shows it in the docs.

Only for a run on a quiet machine (the row `disturbance`), with all of its repeats.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import plot, report
from benchmarks.driver import Result
from benchmarks.measures import Growth
from benchmarks.system import ROOT

REFERENCE = ROOT / "benchmarks/reference.json"
PAGE = ROOT / "docs/performance.md"
_BLOCK = re.compile(r"```\n +median .*?```", re.DOTALL)


def shown(run: dict[str, Any]) -> str:
    """Returns the table and the plots of a run."""
    pairs = {
        name: [(msgspec.convert(one["system"], Result), msgspec.convert(one["floor"], Result)) for one in both]
        for name, both in run["points"].items()
    }
    growth = Growth([], [], [tuple(step) for step in run["growth_curve"]])
    rows = msgspec.convert(run["rows"], list[report.Row])
    return f"{report.table(rows)}\n\n{plot.in_terminal(pairs, growth)}"


def adopt(run: dict[str, Any], reference: Path = REFERENCE, page: Path = PAGE) -> None:
    """Writes the reference and the page's table. Raises `ValueError` for a quick run, and a page without a table."""
    if run["quick"]:
        raise ValueError("a quick run is no reference")
    text, found = _BLOCK.subn(lambda _: f"```\n{shown(run)}\n```", page.read_text(), count=1)
    if not found:
        raise ValueError(f"{page} has no table")
    reference.write_text(json.dumps(run, indent=1) + "\n")
    page.write_text(text)


def main() -> None:
    """Adopts one run."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("run", type=Path)
    adopt(json.loads(arguments.parse_args().run.read_text()))


if __name__ == "__main__":
    main()
