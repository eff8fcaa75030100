"""What `parley up` says once everything runs."""

import pytest

from parley_cli.local.greeting import endpoints
from parley_cli.local.settings import UpSettings


@pytest.mark.parametrize(("console", "named"), [("true", True), ("false", False)])
def test_the_console_is_named_unless_it_is_turned_off(
    monkeypatch: pytest.MonkeyPatch, console: str, named: bool
) -> None:
    monkeypatch.setenv("PARLEY_GATEWAY_CONSOLE", console)
    lines = endpoints("http://127.0.0.1:8080", "127.0.0.1:50051", UpSettings.read())
    assert ("console  http://127.0.0.1:8080/console" in lines) is named
