"""Images, built once, where there is an engine."""

import hashlib
import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.conftest import NOT_RUN
from tests.deploy.engine import ROOT, STORES, Containers, built, docker, missing_engine


def not_run(why: str) -> NoReturn:
    """Skip the test; the run's last lines then have its name and the reason (tests/conftest.py)."""
    pytest.skip(f"{NOT_RUN}{why}")


@pytest.fixture
def engine() -> None:
    """A Docker engine that can build images."""
    if why := missing_engine():
        not_run(why)


@pytest.fixture
def stores(engine: None) -> None:
    """The images of PostgreSQL and Redis."""
    for image in STORES:
        if not docker("images", "--quiet", image):
            not_run(f"the engine has no image {image}")


@pytest.fixture(scope="session")
def _built_images() -> Iterator[dict[str, str]]:
    # A name of its own: whoever ends first removes its images, and nobody else's.
    yield from built(f"test-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}-{os.getpid()}")


@pytest.fixture
def images(engine: None, request: pytest.FixtureRequest) -> dict[str, str]:
    """Names of the images of all services, built from this source tree, by service."""
    names: dict[str, str] = request.getfixturevalue("_built_images")
    return names


@pytest.fixture
def containers() -> Iterator[Containers]:
    """Containers that end with the test."""
    with Containers() as running:
        yield running
