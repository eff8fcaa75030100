"""Images, built once; and the list of what did not run where no engine is there to run it."""

import hashlib
from collections.abc import Iterator

import pytest

from tests.deploy.engine import ROOT, STORES, Containers, built, docker, missing_engine

NOT_RUN = pytest.StashKey[list[str]]()


def not_run(request: pytest.FixtureRequest, why: str) -> None:
    """Skip the test, and say so by name in the summary."""
    request.config.stash.setdefault(NOT_RUN, []).append(f"{request.node.nodeid}: {why}")
    pytest.skip(why)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the tests that this machine could not run."""
    if names := config.stash.get(NOT_RUN, []):
        terminalreporter.section("not run on this machine")
        for name in names:
            terminalreporter.write_line(name)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> None:
    """A Docker engine that can build images."""
    if why := missing_engine():
        not_run(request, why)


@pytest.fixture
def stores(request: pytest.FixtureRequest, engine: None) -> None:
    """The images of PostgreSQL and Redis."""
    for image in STORES:
        if not docker("images", "--quiet", image):
            not_run(request, f"the engine has no image {image}")


@pytest.fixture(scope="session")
def _built_images() -> Iterator[dict[str, str]]:
    yield from built("test-" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:8])


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
