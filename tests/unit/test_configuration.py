"""docs/configuration.md is what the settings classes say, and they say all that a reader needs."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_gateway.settings import GatewaySettings
from config_svc.settings import ConfigSettings
from parley_cli.local.settings import UpSettings
from servicekit.settings import EnvironmentSettings
from session_svc.settings import SessionSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "configuration.md"
SETTINGS: list[type[EnvironmentSettings]] = [ConfigSettings, SessionSettings, GatewaySettings, UpSettings]


def table() -> dict[str, list[str]]:
    """The cells of each line by its variable."""
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text().splitlines():
        if match := re.match(r"\| `([A-Z0-9_]+)` \|", line):
            assert match[1] not in found, match[1]
            found[match[1]] = [cell.strip() for cell in line.split(" | ")]
    return found


def fields() -> Iterator[tuple[type[EnvironmentSettings], str, str]]:
    for settings in SETTINGS:
        for name, variable in settings.variables().items():
            yield settings, name, variable


def test_the_page_is_current() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_variable_has_a_line() -> None:
    assert {variable for *_, variable in fields()} <= table().keys()
    read = re.compile(r"environ(?:\.get)?[(\[]\"((?:PARLEY|OTEL)_\w+)\"")
    for folder in ("libs", "services", "cli"):
        for file in (ROOT / folder).rglob("*.py"):
            assert set(read.findall(file.read_text())) <= table().keys(), file


@pytest.mark.parametrize(("settings", "name", "variable"), list(fields()))
def test_every_setting_says_what_it_does_in_which_unit_and_bounds(
    settings: type[EnvironmentSettings], name: str, variable: str
) -> None:
    _, _, unit, bounds, what = table()[variable]
    field = settings.model_fields[name]
    assert field.description
    assert what.rstrip("| ").endswith(".")
    if field.annotation in (int, float):
        assert bounds
    assert (field.annotation is not float) or unit == "s"
    assert not name.endswith("bytes") or unit == "bytes"
