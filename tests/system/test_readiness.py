"""A gateway says that it is ready when it is, over HTTP and gRPC alike, and not a moment before."""

import time
from collections.abc import Callable

import httpx

from parley_client import is_serving, open_channel
from servicekit.server import STARTED
from tests.servers.system import StartSystem, System


def eventually(happened: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not happened():
        time.sleep(0.05)
    return happened()


def serving(system: System, service: str = "parley.chat.v1.ChatService") -> bool:
    with open_channel(system.grpc_target, None) as channel:
        return is_serving(channel, service)


def ready(system: System) -> httpx.Response:
    with system.client() as client:
        return client.get("/readyz")


def started(system: System) -> bool:
    """What load balancers ask, over HTTP and gRPC alike."""
    with system.client() as client:
        answered = client.get("/startedz").status_code == 200
    assert answered is serving(system, STARTED)
    return answered


def test_a_gateway_is_ready_once_it_can_run_turns(start_system: StartSystem) -> None:
    system = start_system()
    assert serving(system)
    assert ready(system).status_code == 200

    # Started before config_svc, a gateway knows no agent and can't learn of any.
    system.config.kill()
    system.gateways[0].kill()
    system.gateways[0].launch()
    assert eventually(lambda: _lives(system))
    assert not serving(system)
    assert not started(system)
    report = ready(system)
    assert report.status_code == 503
    assert report.json()["parts"]["templates"] == "not published yet"
    system.config.restart()
    assert eventually(lambda: serving(system) and ready(system).status_code == 200)

    system.session.kill()
    assert eventually(lambda: not serving(system) and ready(system).status_code == 503)
    assert started(system), "reading and writing agents goes on, and our errors are better than a load balancer's"
    with system.client() as client:
        assert client.get("/v1/agents").status_code == 200
    system.session.restart()
    assert eventually(lambda: serving(system) and ready(system).status_code == 200)


def _lives(system: System) -> bool:
    try:
        with system.client() as client:
            return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False
