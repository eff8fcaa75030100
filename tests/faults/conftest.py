"""One lab for the tests of a module; every test leaves it mended."""

from collections.abc import Iterator

import pytest

from tests.faults.lab import LEASE_SECONDS, TURN_SECONDS, Lab


@pytest.fixture(scope="module")
def module_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    bounds = ("TURN", "FIRST_TOKEN", "BETWEEN_TOKENS", "ANSWER", "SESSION_WAIT", "CONNECT")
    patience = {f"PARLEY_GATEWAY_{bound}_TIMEOUT": str(TURN_SECONDS) for bound in bounds}
    patience |= {"PARLEY_GATEWAY_PEER_TIMEOUT": "4", "PARLEY_GATEWAY_CONFIG_READ_TIMEOUT": "4"}
    lease = {"PARLEY_SESSION_LEASE": str(LEASE_SECONDS)}
    folder = tmp_path_factory.mktemp("lab")
    with Lab(folder, gateways=2, gateway_settings=patience, session_settings=lease) as lab:
        yield lab


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    """Two gateways and two session_svc."""
    yield module_lab
    module_lab.mend()
