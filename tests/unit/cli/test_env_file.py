import os
from pathlib import Path

import pytest

from parley_cli.errors import LocalError
from parley_cli.local.env_file import load_env_file
from parley_cli.local.settings import UpSettings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("PARLEY_", "X_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_current_directory_may_have_one(folder: Path) -> None:
    load_env_file(None)
    (folder / ".env").write_text(
        "# ports\nPARLEY_GATEWAY_HTTP_PORT=8123\nexport PARLEY_UP_HELLO_MODEL='m 1' # ours\n\n"
    )
    load_env_file(None)
    settings = UpSettings.read()
    assert (settings.gateway_http_port, settings.up_hello_model) == (8123, "m 1")


def test_the_environment_goes_before_it(folder: Path) -> None:
    os.environ |= {"X_SET": "kept", "X_EMPTY": ""}
    (folder / ".env").write_text("X_SET=lost\nX_EMPTY=lost\nX_NEW=read\n")
    load_env_file(None)
    assert [os.environ[name] for name in ("X_SET", "X_EMPTY", "X_NEW")] == ["kept", "", "read"]


def test_a_file_that_is_named_is_read_instead(folder: Path) -> None:
    (folder / ".env").write_text("X_HERE=1\n")
    other = folder / "other"
    other.write_text("X_OTHER=1\n")
    load_env_file(other)
    assert "X_OTHER" in os.environ
    assert "X_HERE" not in os.environ


def test_values_are_taken_as_they_are_written(folder: Path) -> None:
    (folder / ".env").write_text("""X_A=p$word${X_A}\nX_B={"a": {"b": 1}}\nX_C="two\nlines"\nX_D=\n""")
    load_env_file(None)
    values = [os.environ[f"X_{name}"] for name in "ABCD"]
    assert values == ["p$word${X_A}", '{"a": {"b": 1}}', "two\nlines", ""]


@pytest.mark.parametrize("line", ["X_B", "X_B='open", "= x"])
def test_a_wrong_line_is_named_by_its_number_and_nothing_is_set(folder: Path, line: str) -> None:
    (folder / ".env").write_text(f"X_A=secret\n\n{line}\n")
    with pytest.raises(LocalError, match=r"^\.env, line 3: must be NAME=value$"):
        load_env_file(None)
    assert "X_A" not in os.environ


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(LocalError, match="cannot read none: No such file"):
        load_env_file(Path("none"))
    (folder / ".env").mkdir()
    with pytest.raises(LocalError, match=r"cannot read \.env: Is a directory"):
        load_env_file(None)
    (folder / "latin").write_bytes(b"X_A=\xe4\n")
    with pytest.raises(LocalError, match="not UTF-8"):
        load_env_file(Path("latin"))
