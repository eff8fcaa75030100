"""What templates may import: one module, which has all that they need."""

import ast
from pathlib import Path

import pytest

from chat_gateway import template_api
from chat_gateway.templates import assistant, router

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "examples").rglob("src/**/*.py"))
OURS = {"access", "callstream", "chat_gateway", "config_svc", "contract", "parley", "servicekit", "session_svc"}


def imported(source: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            found.add(node.module)
    return {name for name in found if name.partition(".")[0] in OURS}


OWN = [Path(assistant.__file__), Path(router.__file__)]


@pytest.mark.parametrize("source", [*EXAMPLES, *OWN], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_template_imports_nothing_else_of_parley(source: Path) -> None:
    assert imported(source) == {"chat_gateway.template_api"}


def test_there_is_an_example() -> None:
    assert EXAMPLES


def test_everything_that_is_promised_is_there() -> None:
    assert sorted(template_api.__all__) == template_api.__all__
    assert all(hasattr(template_api, name) for name in template_api.__all__)
