"""The suite keeps its own rules."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
OF_A_TEST_MODULE = re.compile(
    r"^\s*(?:from|import) +tests\.[\w.]*\btest_\w+|^\s*from +tests[\w.]* +import +test_", re.M
)


def test_no_module_imports_a_test_module() -> None:
    """What two need stands in a module of its own or in conftest.py: a test module may be moved, split or renamed."""
    ours = [path for path in TESTS.rglob("*.py") if not {".venv", "node_modules"} & set(path.parts)]
    found = {str(path.relative_to(TESTS)): OF_A_TEST_MODULE.findall(path.read_text()) for path in ours}
    assert {path: lines for path, lines in found.items() if lines} == {}
