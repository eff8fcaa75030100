"""A gateway with other ports and pages: metrics on a port of their own, without credentials; no console."""

import time

import httpx

from parley_cli.processes.ports import LOOPBACK
from tests.servers.ports import free_port
from tests.servers.system import System


def test_metrics_have_a_port_of_their_own_and_the_console_can_be_turned_off(parley_system: System) -> None:
    port = free_port()
    gateway = parley_system.new_gateway({"PARLEY_GATEWAY_METRICS_PORT": str(port), "PARLEY_GATEWAY_CONSOLE": "false"})
    parley_system.gateways.remove(gateway)  # others have two
    with gateway, httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=60, trust_env=False) as client:
        assert "parley_turns_queued" in client.get("/metrics").text
        deadline = time.monotonic() + 60
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.get("/v1/agents").status_code == 404
        assert client.get(f"{gateway.http_url}/console").json()["error"]["code"] == "route_not_found"
        assert client.get(f"{gateway.http_url}/v1/agents").status_code == 200
