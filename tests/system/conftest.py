import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.servers.browser import chromium
from tests.servers.mock_model import MockModel
from tests.servers.parley_up import Parley
from tests.servers.system import System


@pytest.fixture
def mock_model() -> Iterator[MockModel]:
    with MockModel() as model:
        yield model


@pytest.fixture
def forgetful_model(parley_system: System) -> Iterator[None]:
    """The shared system's model without what other tests scripted and recorded; it is left in the same way."""
    parley_system.model.reset()
    yield
    parley_system.model.reset()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's browser. A module's own: Playwright's event loop would be in the way of other modules' tests."""
    with chromium() as started:
        yield started


@pytest.fixture
def parley(tmp_path: Path, mock_model: MockModel) -> Iterator[Parley]:
    """The command in an empty folder, of an odd name; a system that a test left running there is stopped after it."""
    folder = tmp_path / 'it\'s "here", ü $HOME'
    folder.mkdir()
    parley = Parley(folder, {"PARLEY_PROVIDERS": json.dumps({"mock": {"base_url": mock_model.url}})})
    yield parley
    if (folder / ".parley").exists():
        parley.run("down")
