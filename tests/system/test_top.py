"""`parley top` against running replicas of every service."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.servers.ports import free_port
from tests.servers.system import StartSystem


def test_every_replica_is_shown_with_what_it_does(start_system: StartSystem) -> None:
    config_port, session_port = free_port(), free_port()
    system = start_system(
        gateways=2,
        config_env={"PARLEY_CONFIG_METRICS_PORT": str(config_port)},
        session_env={"PARLEY_SESSION_METRICS_PORT": str(session_port)},
    )
    system.create_agent("watched")
    ended = threading.Event()

    def talk() -> None:
        turns = 0
        with system.client() as client:
            while not ended.is_set():
                assert system.chat("watched", "hello", gateway=turns % 2).status_code == 200
                assert client.get("/v1/agents").status_code == 200  # config_svc has no part in a turn
                turns += 1

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        urls = [system.gateways[0].http_url, system.gateways[1].http_url]
        urls += [f"http://127.0.0.1:{config_port}", f"http://127.0.0.1:{session_port}"]
        deadline = time.monotonic() + 120
        shown = top(urls)
        while not all(shows_latencies(line) for line in replicas_of(shown)):
            assert time.monotonic() < deadline, shown
            shown = top(urls)  # on a busy machine a replica may go for a second without a call
    finally:
        ended.set()
        talking.join(30)
    sums = shown.splitlines()[0]
    assert "replicas 4 of 4" in sums, shown
    assert float(sums.split()[1].removesuffix("/s")) > 0, sums
    kinds = [line.split()[1] for line in replicas_of(shown)]
    assert kinds == ["gateway", "gateway", "session_svc", "config_svc"]
    services = [(line.split()[1], line.split()[-1]) for line in states_of(shown)]
    assert services[-2:] == [("session_svc", "serving"), ("config_svc", "serving")], shown
    assert {name for name, _ in services[:-2]} == {"gateway"}, shown


def top(urls: list[str]) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("parley"), "top", "--once", *urls],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    return done.stdout


def replicas_of(shown: str) -> list[str]:
    return [line for line in shown.partition("health check")[0].splitlines() if "127.0.0.1" in line]


def states_of(shown: str) -> list[str]:
    return shown.partition("health check")[2].strip().splitlines()[1:]


def shows_latencies(line: str) -> bool:
    return line.rstrip().endswith("MB") and line.count(" ms") >= 3
