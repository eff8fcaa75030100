"""Prometheus reads a gateway's metrics on a port of their own, which asks for no key and tells nothing else."""

import time

import httpx

from parley_cli.processes.ports import LOOPBACK
from tests.servers.ports import free_port
from tests.servers.system import System


def test_a_gateway_tells_its_metrics_on_their_own_port(parley_system: System) -> None:
    port = free_port()
    gateway = parley_system.new_gateway({"PARLEY_GATEWAY_METRICS_PORT": str(port)})
    parley_system.gateways.remove(gateway)  # others have two
    with gateway, httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=60, trust_env=False) as client:
        assert "parley_turns_queued" in client.get("/metrics").text
        deadline = time.monotonic() + 60
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.get("/v1/agents").status_code == 404
