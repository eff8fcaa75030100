"""What a gateway says of an environment that it can't start with."""

import subprocess
import sys

import pytest

from chat_gateway.providers.settings import ProviderSettings
from chat_gateway.settings import GatewaySettings
from servicekit.settings import SettingsError
from tests.servers.processes import clean_environment


@pytest.mark.parametrize(
    ("providers", "complaint"),
    [
        ("{x", "PARLEY_PROVIDERS: not JSON: "),
        ("[]", "PARLEY_PROVIDERS: Input should be a valid dictionary"),
        ('{"a": {}}', "PARLEY_PROVIDERS: a.base_url: is required"),
        ('{"a": {"base_url": "ftp://x"}}', "PARLEY_PROVIDERS: a.base_url: must be an http or https URL"),
        ('{"a": {"base_url": "http://x", "api_key": "sk-1"}}', "PARLEY_PROVIDERS: a.api_key: Extra inputs are not"),
    ],
)
def test_a_wrong_variable_is_one_line_with_its_name(
    monkeypatch: pytest.MonkeyPatch, providers: str, complaint: str
) -> None:
    monkeypatch.setenv("PARLEY_PROVIDERS", providers)
    with pytest.raises(SettingsError) as caught:
        GatewaySettings()
    [line] = str(caught.value).splitlines()
    assert line.startswith(complaint)


@pytest.mark.slow
def test_a_process_with_a_wrong_variable_says_so_and_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chat_gateway"],
        env=clean_environment({"PARLEY_PROVIDERS": '{"a": {}}'}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "chat_gateway: cannot start: PARLEY_PROVIDERS: a.base_url: is required\n"


def test_a_provider_has_bounds_of_its_own() -> None:
    settings = ProviderSettings(
        base_url="http://p/v1", first_token_timeout=3, max_retries=0, max_concurrent_calls=5, breaker_failures=7
    )
    assert settings.timeouts(own=True) == {"first_token": 3}
    assert ProviderSettings(base_url="http://p/v1", connect_timeout=None).timeouts(own=True) == {}
    resilience = settings.resilience
    assert (resilience.max_retries, resilience.max_concurrent_calls, resilience.breaker.min_failures) == (0, 5, 7)


def test_keys_come_from_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "k")
    settings = ProviderSettings(base_url="http://p/v1", api_key_env="KEY", api_key_files=("/run/keys",))
    with pytest.raises(ValueError, match="both set"):
        settings.api_key()


@pytest.mark.parametrize("origins", ["", "*", "https://a.example, http://localhost:3000", "chrome-extension://abc"])
def test_origins_of_pages_are_taken(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("PARLEY_GATEWAY_CORS_ORIGINS", origins)
    assert ", ".join(GatewaySettings().cors_origins) == origins


@pytest.mark.parametrize(
    "origins", ["a.example", "https://a.example/", "https://A.example", "null", "*,https://a.example"]
)
def test_what_no_browser_sends_as_an_origin_stops_the_start(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("PARLEY_GATEWAY_CORS_ORIGINS", origins)
    with pytest.raises(SettingsError, match=r"PARLEY_GATEWAY_CORS_ORIGINS: .* must be an origin"):
        GatewaySettings()
