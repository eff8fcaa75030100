"""docs/configuration.md is what the settings classes say, and they say all that a reader needs."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from chat_gateway.settings import GatewaySettings
from config_svc.settings import ConfigSettings
from parley_cli.local.settings import UpSettings
from servicekit.settings import EnvironmentSettings, SettingsError
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


@pytest.mark.slow
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


NONSENSE = [
    *("nan", "inf", "-inf", "-1", "1e400", "9" * 20, "9" * 5000, "-P1D", "P999999999D", "\u0661\u0662x"),
    "[" * 100_000,
]
NUMBERS = [one for one in fields() if one[0].model_fields[one[1]].annotation in (int, float, timedelta)]


def test_no_number_is_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings, _, variable in NUMBERS:
        for value in NONSENSE:
            monkeypatch.setenv(variable, value)
            with pytest.raises(SettingsError) as raised:
                settings()
            assert f"{variable}: " in str(raised.value), (variable, value[:20])
            assert len(str(raised.value)) < 1000, variable
        monkeypatch.delenv(variable)


ADDRESSES = ["", "nowhere", ":1", "a:70000", "[]:1", "http://[", "a b:1", "9" * 5000]


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        *((SessionSettings, f"PARLEY_SESSION_{name}") for name in ("CONFIG_TARGET", "HOST")),
        *((GatewaySettings, f"PARLEY_GATEWAY_{name}") for name in ("CONFIG_TARGET", "SESSION_TARGET", "HOST")),
        *((GatewaySettings, f"PARLEY_GATEWAY_{name}") for name in ("A2A_URL", "REPLICAS")),
    ],
)
def test_an_address_that_is_none_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, settings: type[EnvironmentSettings], variable: str
) -> None:
    for value in ADDRESSES[1:] if variable.endswith(("URL", "REPLICAS")) else ADDRESSES:
        monkeypatch.setenv(variable, value)
        with pytest.raises(SettingsError) as raised:
            settings()
        assert f"{variable}: " in str(raised.value) or f"{variable} " in str(raised.value), value[:20]


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/", "pipe", "none"])
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    given = {"auth": "required", "operator_key_file": tmp_path / path}
    for settings in (ConfigSettings, SessionSettings, GatewaySettings):
        with pytest.raises(SettingsError, match="PARLEY_OPERATOR_KEY_FILE can't be read"):
            settings(**given)
    with pytest.raises(SettingsError, match="PARLEY_CONFIG_KEY_SECRET_FILE can't be read"):
        ConfigSettings(key_secret_file=tmp_path / path)
