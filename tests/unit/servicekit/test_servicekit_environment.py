from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from servicekit.environment import COMMAS, FromEnvironment, Secret, SettingsError, variable


class Settings(FromEnvironment):
    prefix = "X_"

    port: Annotated[int, msgspec.Meta(ge=0, le=9)] = 1
    rate: Annotated[float, msgspec.Meta(gt=0, le=4)] = 2.0
    on: bool = True
    keep: timedelta = timedelta(days=1)
    key: Annotated[Secret | None, variable("Y_KEY")] = None
    file: Path | None = None
    names: Annotated[tuple[str, ...], COMMAS] = ()
    parts: dict[str, dict[str, Any]] | None = None
    level: Literal["low", "high"] = "low"


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("X_PORT", "9", "port", 9),
        ("X_RATE", "0.5", "rate", 0.5),
        ("X_ON", "false", "on", False),
        ("X_ON", "Off", "on", False),
        ("X_ON", "1", "on", True),
        ("X_KEEP", "90", "keep", timedelta(seconds=90)),
        ("X_KEEP", "P7D", "keep", timedelta(days=7)),
        ("X_FILE", "/etc/x", "file", Path("/etc/x")),
        ("X_NAMES", "a, b,,", "names", ("a", "b")),
        ("X_PARTS", '{"a": {"b": 1}}', "parts", {"a": {"b": 1}}),
        ("X_LEVEL", "high", "level", "high"),
    ],
)
def test_variables_are_read(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: Any) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(Settings(), field) == value


def test_everything_that_is_wrong_is_named_and_no_value_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"X_PORT": "10", "X_RATE": "nan", "X_ON": "perhaps", "X_KEEP": "soon", "X_PARTS": "{secret", "X_LEVEL": ""}
    for name, text in wrong.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError) as caught:
        Settings()
    problems = str(caught.value).split("; ")
    assert [problem.partition(":")[0] for problem in problems] == list(wrong)
    assert "X_PARTS: not JSON" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_given_goes_before_the_environment_and_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_PORT", "3")
    assert Settings(port=4).port == 4
    with pytest.raises(SettingsError, match="X_PORT"):
        Settings(port=10)
    with pytest.raises(TypeError, match="prot"):
        Settings(prot=4)


def test_a_field_without_a_default_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    class Needy(FromEnvironment):
        url: str

    with pytest.raises(SettingsError, match="URL: is required"):
        Needy()
    monkeypatch.setenv("URL", "x")
    assert Needy().url == "x"


def test_empty_variables_count_where_they_are_not_said_to_be_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lenient(Settings):
        empty_is_unset = True

    monkeypatch.setenv("X_PORT", "")
    assert Lenient().port == 1
    with pytest.raises(SettingsError, match="X_PORT"):
        Settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Y_KEY", "hush")
    settings = Settings()
    assert settings.key is not None
    assert settings.key.reveal() == "hush"
    assert "hush" not in f"{settings!r} {settings} {settings.key} {settings.key!r}"


def test_settings_do_not_change_but_are_replaced() -> None:
    settings = Settings()
    with pytest.raises(AttributeError):
        settings.port = 2
    assert (settings.replace(port=2).port, settings.port) == (2, 1)
