"""Runbooks name what is there: settings, metrics, scripts (for links see tests/unit/test_documents.py)."""

import re
from pathlib import Path

import pytest

from tests.deploy.engine import ROOT
from tests.deploy.service_settings import CLASSES, names_of

PAGES = sorted((ROOT / "docs" / "operations").glob("*.md"))
WRITTEN_BY_US = {"upgrade.md", "scaling.md", "backup.md", "incidents.md"}
SOURCE = "\n".join(path.read_text() for folder in ("services", "libs", "cli") for path in (ROOT / folder).rglob("*.py"))


@pytest.fixture(params=[page for page in PAGES if page.name in WRITTEN_BY_US], ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_all_runbooks_are_there() -> None:
    assert {page.name for page in PAGES} >= WRITTEN_BY_US


def test_settings_and_metrics_are_those_of_the_code(page: Path) -> None:
    known = set().union(*map(names_of, CLASSES.values()))
    text = page.read_text()
    assert set(re.findall(r"\bPARLEY_[A-Z_]+[A-Z]\b", text)) <= known
    for metric in set(re.findall(r"\bparley_[a-z_]+[a-z]\b", text)) - {"parley_sk"}:
        assert f'"{metric.removesuffix("_total")}"' in SOURCE, metric


def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`((?:deploy|tests|docs|benchmarks)/[\w/.-]+)`", page.read_text()):
        assert (ROOT / name).exists(), name
