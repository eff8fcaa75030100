"""The documents name what is there: pages and their sections, tests, settings, commands."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from parley_cli.commands.app import app
from parley_cli.local.settings import UpSettings
from tests.deploy.service_settings import CLASSES, names_of

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# What no service reads: `parley` and the tests do.
OTHER_VARIABLES = {
    *("PARLEY_URL", "PARLEY_API_KEY"),
    *("PARLEY_TEST_SERVERS", "PARLEY_TEST_POSTGRES_URL", "PARLEY_TEST_REDIS_URL"),
}
COMMAND = re.compile(r"^(?:\$ |  script: )?(?:\.venv/bin/)?parley ((?:[a-z]+\b ?)+)", re.MULTILINE)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchor(title: str) -> str:
    """What a heading is called in a link."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def code(text: str) -> list[str]:
    """What stands in blocks and between backticks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))]


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, section = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if section:
            assert section in map(anchor, re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)), target


def test_every_page_can_be_found_from_the_readme() -> None:
    found, left = {ROOT / "README.md"}, [ROOT / "README.md"]
    while left:
        page = left.pop()
        for target in re.findall(r"\]\(([^)\s#]+\.md)", page.read_text()):
            linked = (page.parent / target).resolve()
            if linked not in found:
                found.add(linked)
                left.append(linked)
    assert found >= set(PAGES)


@every_page
def test_tests_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"\b((?:\w+/)*test_\w+\.py)\b", page.read_text()):
        assert (TESTS / name.removeprefix("tests/")).is_file(), name


def test_every_guarantee_has_a_test() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text().partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        files = [TESTS / name for name in re.findall(r"`([\w/]+\.py)`", row)]
        assert files, row
        assert all("\nasync def test_" in path.read_text() or "\ndef test_" in path.read_text() for path in files), row


@every_page
def test_variables_that_are_named_exist(page: Path) -> None:
    known = set().union(*map(names_of, CLASSES.values())) | set(UpSettings.variables().values()) | OTHER_VARIABLES
    assert set(re.findall(r"\bPARLEY_[A-Z_]+[A-Z]\b(?!_)", page.read_text())) <= known


@every_page
def test_commands_that_are_named_exist(page: Path) -> None:
    for text in code(page.read_text()):
        for words in COMMAND.findall(text):
            commands: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
            for word in words.split():
                assert word in commands, f"parley {words}"
                commands = getattr(commands[word], "commands", {})
                if not commands:
                    break  # what follows are its arguments


@every_page
def test_targets_of_make_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in code(page.read_text()):
        assert set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) <= targets
