"""One lab for the tests of a module; every test leaves it mended."""

from collections.abc import Iterator

import pytest

from tests.faults.lab import TURN_SECONDS, Lab


@pytest.fixture(scope="module")
def module_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    bounds = ("TURN", "FIRST_TOKEN", "BETWEEN_TOKENS", "ANSWER")
    patience = {f"PARLEY_GATEWAY_{bound}_TIMEOUT": str(TURN_SECONDS) for bound in bounds}
    with Lab(tmp_path_factory.mktemp("lab"), gateways=2, gateway_settings=patience) as lab:
        yield lab


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    """Two gateways and two session_svc; the lease is 2 s."""
    yield module_lab
    module_lab.mend()
