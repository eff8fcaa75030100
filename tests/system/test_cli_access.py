"""`parley projects`, `keys` and `audit` against the real system."""

import json
from pathlib import Path
from uuid import uuid4

import pytest
from rich.console import Console
from typer.testing import CliRunner

from parley_cli.commands.app import app
from parley_cli.errors import LocalError
from parley_cli.local.data_directory import DataDirectory
from parley_cli.local.narrator import Narrator
from parley_cli.local.operator_key import require_credentials
from tests.servers.system import System


def parley(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_key_is_made_used_and_revoked(guarded_system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_URL", guarded_system.http_url)
    monkeypatch.setenv("PARLEY_API_KEY", guarded_system.operator_key)
    project = f"p{uuid4().hex[:10]}"
    parley("projects", "create", project)
    assert project in parley("projects", "list")
    made = json.loads(
        parley("keys", "create", "--project", project, "--scope", "keys:admin", "--scope", "audit:read", "--json")
    )
    monkeypatch.setenv("PARLEY_API_KEY", made["key"])
    listed = parley("keys", "list")
    assert made["id"] in listed
    assert made["key"] not in listed
    shown = json.loads(parley("keys", "get", made["id"], "--json"))
    assert shown == {name: value for name, value in made.items() if name != "key"} | {
        "last_used_time": shown["last_used_time"]
    }
    assert made["id"] in parley("keys", "get", made["id"])
    assert "api_keys.create" in parley("audit")
    monkeypatch.setenv("PARLEY_API_KEY", guarded_system.operator_key)
    assert json.loads(parley("keys", "rotate", made["id"], "--project", project, "--json"))["replaced"]["expire_time"]
    parley("keys", "revoke", made["id"], "--project", project)
    with pytest.raises(LocalError, match="--yes"):
        parley("projects", "delete", project)
    assert project in parley("projects", "list")
    parley("projects", "delete", project, "--yes")


def test_the_operator_key_of_a_local_system_is_made_once_and_for_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PARLEY_AUTH", "PARLEY_OPERATOR_KEY", "PARLEY_OPERATOR_KEY_FILE", "PARLEY_API_KEY"):
        monkeypatch.setenv(name, "")
    narrator = Narrator(Console(quiet=True))
    require_credentials(DataDirectory(tmp_path / "data"), narrator)
    path = tmp_path / "data" / "operator.key"
    first = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(first.strip()) >= 32
    require_credentials(DataDirectory(tmp_path / "data"), narrator)
    assert path.read_text() == first
