"""The suite keeps its own rules."""

import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
OF_A_TEST_MODULE = re.compile(
    r"^\s*(?:from|import) +tests\.[\w.]*\btest_\w+|^\s*from +tests[\w.]* +import +test_", re.M
)

PLUGINS = {"hypothesis", "pytest-asyncio", "pytest-xdist"}
MARK = "mark." + "timing"
FEWEST_OBJECTS = 100_000
"""What pytest and a few modules of tests are, at the least."""


def test_no_module_imports_a_test_module() -> None:
    """What two need stands in a module of its own or in conftest.py: a test module may be moved, split or renamed."""
    ours = [path for path in TESTS.rglob("*.py") if not {".venv", "node_modules"} & set(path.parts)]
    found = {str(path.relative_to(TESTS)): OF_A_TEST_MODULE.findall(path.read_text()) for path in ours}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_timing_tests_are_where_make_looks_for_them() -> None:
    untimed = re.search(r"^UNTIMED := (.+)", (TESTS.parent / "Makefile").read_text(), re.M)
    assert untimed is not None
    for folder in untimed[1].removeprefix("$(CLIENTS) ").split():
        found = [path for path in (TESTS.parent / folder).rglob("*.py") if MARK in path.read_text()]
        assert found == [], folder


def test_only_plugins_that_tests_use_are_loaded(pytestconfig: pytest.Config) -> None:
    """Each worker imports all that they import: others are left out in `pyproject.toml`."""
    assert {found.project_name for _, found in pytestconfig.pluginmanager.list_plugin_distinfo()} <= PLUGINS


def test_the_search_for_cycles_goes_on_without_what_was_collected() -> None:
    assert gc.isenabled()
    assert gc.get_freeze_count() > FEWEST_OBJECTS


def test_a_run_without_slow_tests_starts_no_process(pytestconfig: pytest.Config) -> None:
    """What starts one and has no mark fails in `make test-fast`, by its name."""
    try:
        subprocess.run([sys.executable, "-c", ""], check=True, timeout=60)
        refused = False
    except AssertionError:
        refused = True
    assert refused is ("not slow" in pytestconfig.option.markexpr)
