"""The reference run meets the first budgets, and docs/performance.md shows what it measured."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from benchmarks import plot, report
from benchmarks.adopt import adopt
from benchmarks.driver import Result
from benchmarks.measures import Growth
from benchmarks.report import Row
from PIL import Image

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    run: dict[str, Any] = json.loads((ROOT / "benchmarks/reference.json").read_text())
    return run


@pytest.fixture(scope="module")
def rows(reference: dict[str, Any]) -> list[Row]:
    return msgspec.convert(reference["rows"], list[Row])


@pytest.fixture(scope="module")
def measured(reference: dict[str, Any]) -> tuple[report.Pairs, Growth]:
    pairs = {
        name: [(msgspec.convert(one["system"], Result), msgspec.convert(one["floor"], Result)) for one in both]
        for name, both in reference["points"].items()
    }
    return pairs, Growth([], [], [tuple(step) for step in reference["growth_curve"]])


def test_every_first_budget_is_met_in_less_than_ten_minutes(reference: dict[str, Any], rows: list[Row]) -> None:
    budgeted = [row for row in rows if row.first is not None]
    assert len(budgeted) >= 12
    assert [row.name for row in budgeted if not row.meets(row.first)] == []
    assert reference["took_seconds"] < 600
    assert not reference["quick"]
    assert reference["hardware"]["processor"]


def test_what_a_turn_costs_is_what_was_measured(rows: list[Row], measured: tuple[report.Pairs, Growth]) -> None:
    again = {row.name: row.median for row in report.rows_of_turns(measured[0])}
    assert again == {row.name: row.median for row in rows if row.name in again}


def test_the_page_shows_the_reference(rows: list[Row], measured: tuple[report.Pairs, Growth]) -> None:
    page = (ROOT / "docs/performance.md").read_text()
    assert f"{report.table(rows)}\n\n{plot.in_terminal(*measured)}\n```" in page


def test_another_run_replaces_the_reference_and_its_table(reference: dict[str, Any], tmp_path: Path) -> None:
    page, file = tmp_path / "page.md", tmp_path / "reference.json"
    page.write_text((ROOT / "docs/performance.md").read_text())
    slower = {**reference, "rows": [{**row, "values": [9.0]} for row in reference["rows"]]}
    adopt(slower, file, page)
    assert json.loads(file.read_text()) == slower
    assert "  9.00 ms" in page.read_text()
    adopt(reference, file, page)
    assert page.read_text() == (ROOT / "docs/performance.md").read_text()
    with pytest.raises(ValueError, match="quick"):
        adopt({**reference, "quick": True}, file, page)


def test_the_picture_is_drawn(measured: tuple[report.Pairs, Growth], tmp_path: Path) -> None:
    plot.to_png(*measured, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        colours = picture.convert("RGB").getcolors(picture.width * picture.height)
    assert colours is not None
    assert len(colours) > 3
