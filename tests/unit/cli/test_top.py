"""What `parley top` makes of two looks at a replica's metrics."""

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from rich.console import Console

from parley_cli.errors import LocalError
from parley_cli.top.reading import Reading, activity, parse, quantile
from parley_cli.top.replicas import Replica, Replicas
from parley_cli.top.screen import render


class Gateway:
    """The metrics of a gateway, as far as they are shown."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.turns = Counter("parley_turns", "x", ["outcome"], registry=self.registry)
        self.seconds = Histogram("parley_turn_duration_seconds", "x", ["streamed"], registry=self.registry)
        Gauge("parley_turns_running", "x", registry=self.registry).set(3)
        Gauge("parley_turns_queued", "x", registry=self.registry).set(2)
        Gauge("parley_instances", "x", registry=self.registry).set(7)

    def turn(self, outcome: str, seconds: float, streamed: str = "true") -> None:
        self.turns.labels(outcome).inc()
        self.seconds.labels(streamed).observe(seconds)

    def circuits(self, *states: int) -> None:
        gauge = Gauge("parley_provider_circuit_state", "x", ["provider"], registry=self.registry)
        for number, state in enumerate(states):
            gauge.labels(f"p{number}").set(state)

    def read(self, time: float) -> Reading:
        return parse(generate_latest(self.registry).decode(), time)


def test_rates_and_latencies_are_of_the_time_between_two_looks() -> None:
    gateway = Gateway()
    for _ in range(100):
        gateway.turn("committed", 9.0)  # before: must not show
    before = gateway.read(10.0)
    for _ in range(9):
        gateway.turn("committed", 0.02)
    gateway.turn("provider_unavailable", 0.02, "false")
    now = activity(before, gateway.read(12.0))
    assert (now.kind, now.rate, now.errors) == ("gateway", 5.0, 0.5)
    assert now.median is not None
    assert 0.01 < now.median <= 0.025
    assert (now.running, now.waiting, now.instances) == (3, 2, 7)


def test_the_first_token_is_that_of_streamed_calls_between_two_looks() -> None:
    gateway = Gateway()
    first = Histogram("gen_ai_client_operation_time_to_first_chunk_seconds", "x", registry=gateway.registry)
    first.observe(5.0)
    before = gateway.read(0.0)
    assert activity(before, gateway.read(1.0)).first_token is None
    first.observe(0.06)
    first_token = activity(before, gateway.read(1.0)).first_token
    assert first_token is not None
    assert 0.05 < first_token <= 0.075


def test_a_restarted_replica_counts_from_its_start() -> None:
    old, new = Gateway(), Gateway()
    for _ in range(50):
        old.turn("committed", 0.01)
    new.turn("committed", 0.01)
    assert activity(old.read(0.0), new.read(1.0)).rate == 1.0


def test_quantiles_are_interpolated_as_prometheus_does() -> None:
    inf = float("inf")
    assert quantile(0.5, {}, {0.1: 0.0, 0.2: 10.0, inf: 10.0}) == pytest.approx(0.15)
    assert quantile(0.95, {}, {0.1: 0.0, inf: 10.0}) == 0.1
    assert quantile(0.5, {0.1: 4.0, inf: 4.0}, {0.1: 4.0, inf: 4.0}) is None


def test_a_replica_that_is_silent_is_named(free_port: int) -> None:
    replicas = Replicas([f"http://127.0.0.1:{free_port}"])
    replicas.look()
    [replica] = replicas.all
    replicas.close()
    assert replica.trouble == "does not answer"
    assert "1 silent" in picture(replica)
    assert "does not answer" in picture(replica)


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "answers 401: needs the operator key"), (403, "answers 403: needs the operator key"), (500, "answers 500")],
)
def test_a_replica_that_refuses_says_which_key_it_needs(status: int, said: str) -> None:
    replica = Replica("http://replica")
    with httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(status))) as client:
        replica.look(client)
    assert replica.trouble == said


def test_what_is_not_an_address_is_a_named_error() -> None:
    with pytest.raises(LocalError, match="not the address"):
        Replicas(["http://no-such-host.invalid:8080"])


def test_sums_stand_over_the_lines() -> None:
    gateway = Gateway()
    before = gateway.read(0.0)
    for _ in range(30):
        gateway.turn("committed", 0.01)
    replicas = [Replica(f"http://gateway-{n}:8080") for n in (1, 2)]
    for replica in replicas:
        replica.last = gateway.read(1.0)
        replica.now = activity(before, replica.last)
    shown = picture(*replicas)
    assert "turns 60.0/s" in shown
    assert "2 of 2" in shown
    assert "gateway-1:8080" in shown


def picture(*replicas: Replica) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(replicas))
    console.file.close()
    return console.export_text()


@pytest.fixture
def free_port() -> int:
    from tests.servers.ports import free_port

    return free_port()


def test_providers_that_are_left_alone_are_counted() -> None:
    gateway = Gateway()
    assert activity(gateway.read(0.0), gateway.read(1.0)).circuits is None
    gateway.circuits(0, 1, 2)
    assert activity(gateway.read(0.0), gateway.read(1.0)).circuits == 2
