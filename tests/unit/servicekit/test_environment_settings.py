from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from servicekit.settings import FROM_JSON, Duration, EnvironmentSettings, SettingsError, Words, variables_after


class Settings(EnvironmentSettings):
    model_config = SettingsConfigDict(alias_generator=variables_after("X_"))

    port: int = Field(default=1, ge=0, le=9)
    rate: float = Field(default=2.0, gt=0, le=4)
    on: bool = True
    keep: Duration = Field(default=timedelta(days=1), ge=timedelta(0), le=timedelta(days=9))
    key: SecretStr | None = Field(default=None, validation_alias="Y_KEY")
    file: Path | None = None
    names: Words = ()
    parts: Annotated[dict[str, dict[str, Any]] | None, FROM_JSON] = None
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
        ("X_KEEP", "90.5", "keep", timedelta(seconds=90.5)),
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
    wrong = {"X_PORT": "10", "X_RATE": "nan", "X_ON": "perhaps", "X_KEEP": "P10D", "X_PARTS": "{secret", "X_LEVEL": ""}
    for name, text in wrong.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError) as caught:
        Settings()
    problems = str(caught.value).splitlines()
    assert [problem.partition(":")[0] for problem in problems] == list(wrong)
    assert "X_PORT: Input should be less than or equal to 9" in problems
    assert "X_PARTS: not JSON" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("text", ["soon", "nan", "-1", "inf"])
def test_a_time_that_is_none_or_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("X_KEEP", text)
    with pytest.raises(SettingsError, match="X_KEEP: "):
        Settings()


def test_what_is_given_goes_before_the_environment_and_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_PORT", "3")
    assert Settings(port=4).port == 4
    with pytest.raises(SettingsError, match="X_PORT"):
        Settings(port=10)
    with pytest.raises(SettingsError, match="prot"):
        Settings(**{"prot": 4})


def test_only_the_variable_itself_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("port", "PORT", "x_port", "X_KEY", "key"):
        monkeypatch.setenv(name, "7")
    assert Settings() == Settings(port=1, key=None)


def test_a_subclass_has_its_own_prefix_for_all_but_variables_that_a_field_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Other(Settings):
        model_config = SettingsConfigDict(alias_generator=variables_after("Z_"))

    monkeypatch.setenv("X_PORT", "3")
    monkeypatch.setenv("Z_PORT", "4")
    monkeypatch.setenv("Y_KEY", "hush")
    settings = Other()
    assert (settings.port, settings.key) == (4, SecretStr("hush"))
    assert Other.variables()["port"] == "Z_PORT"
    assert Settings.variables()["port"] == "X_PORT"


def test_a_field_without_a_default_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    class Needy(EnvironmentSettings):
        model_config = SettingsConfigDict(alias_generator=variables_after(""))

        url: str

    with pytest.raises(SettingsError, match="URL: is required"):
        Needy()  # type: ignore[call-arg]
    monkeypatch.setenv("URL", "x")
    assert Needy().url == "x"  # type: ignore[call-arg]


def test_empty_variables_count_where_they_are_not_said_to_be_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lenient(Settings):
        model_config = SettingsConfigDict(env_ignore_empty=True)

    monkeypatch.setenv("X_PORT", "")
    assert Lenient().port == 1
    with pytest.raises(SettingsError, match="X_PORT"):
        Settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Y_KEY", "hush")
    settings = Settings()
    assert settings.key is not None
    assert settings.key.get_secret_value() == "hush"
    assert "hush" not in f"{settings!r} {settings} {settings.key} {settings.key!r}"


def test_settings_do_not_change_but_are_copied() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 2  # type: ignore[misc]
    assert (settings.model_copy(update={"port": 2}).port, settings.port) == (2, 1)
