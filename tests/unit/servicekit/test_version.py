"""Which release a process says that it is of, in images and outside of them."""

import re
from importlib import metadata
from pathlib import Path

import pytest

from chat_gateway.providers.http_client import open_client
from servicekit import version
from servicekit.version import VARIABLE, release

DOCKERFILE = Path(__file__).resolve().parents[3] / "Dockerfile"


def no_package(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


def test_an_image_says_its_version_where_no_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "version", no_package)
    assert release() == ""
    monkeypatch.setenv(VARIABLE, "1.2.3-rc.1+g0")
    assert release() == "1.2.3-rc.1+g0"


@pytest.mark.parametrize("given", ["", "1.0\r\nx: y", "a b", "x" * 65])
def test_what_is_no_version_is_not_said(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(VARIABLE, given)
    assert release() == metadata.version("parley")


async def test_providers_are_told_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "9.8.7")
    async with open_client(1.0) as client:
        assert client.headers["User-Agent"] == "parley/9.8.7"


def test_every_image_is_built_with_its_version_known() -> None:
    stage = DOCKERFILE.read_text().partition("FROM scratch AS image\n")[2].partition("\nFROM ")[0]
    assert re.search(r"^ARG VERSION$", stage, re.MULTILINE)
    assert re.search(rf"^ENV (?:.*\\\n)*.*\b{VARIABLE}=\$\{{VERSION\}}", stage, re.MULTILINE)
