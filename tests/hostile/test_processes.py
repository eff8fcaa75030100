"""Attacks of callers and providers on a gateway process with few descriptors, measured as bystander.py says.

One set of services for all of them, so what one leaves behind meets the next.
"""

import contextlib
import gzip
import json
import resource
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from access.api_key import new_api_key
from tests.hostile.bystander import Bystander
from tests.hostile.provider import ATTACKS, GOOD, hostile_provider
from tests.servers.ports import free_port
from tests.servers.system import PROVIDER, OpenSystem, System

DESCRIPTORS = 512
SECONDS = 1.0
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
ELSEWHERE = "127.0.0.2"
"""The source of the attacks: the bystander has another."""

METRICS_PORTS: list[int] = []
"""Of config_svc, once it runs."""

pytestmark = pytest.mark.timing


@pytest.fixture(scope="module")
def system(open_system: OpenSystem) -> Iterator[System]:
    key = secrets.token_urlsafe(32)
    METRICS_PORTS.append(free_port())
    with (
        hostile_provider() as url,
        open_system(
            "hostile",
            operator_key=key,
            config_env={"PARLEY_CONFIG_METRICS_PORT": str(METRICS_PORTS[0])},
            env={"PARLEY_AUTH": "required", "PARLEY_OPERATOR_KEY": key},
            gateway_env={
                "PARLEY_PROVIDERS": json.dumps({PROVIDER: {"base_url": url, "max_retries": 0, "breaker_failures": 0}}),
                "PARLEY_GATEWAY_FIRST_TOKEN_TIMEOUT": "5",
                "PARLEY_GATEWAY_BETWEEN_TOKENS_TIMEOUT": "5",
                "PARLEY_GATEWAY_ANSWER_TIMEOUT": "10",
                "PARLEY_GATEWAY_MAX_CONNECTIONS": "200",
                "PARLEY_GATEWAY_MAX_CONNECTIONS_PER_SOURCE": "120",
            },
        ) as running,
    ):
        gateway = psutil.Process(running.gateways[0].pid)
        gateway.rlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        for model in (GOOD, *ATTACKS):
            name = "hello" if model == GOOD else model
            running.create_agent(name, model={"provider": PROVIDER, "name": model})
        assert running.chat("hello", "Hi").status_code == 200
        yield running


class Attacker:
    """Connections of one source to the gateway's HTTP port."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.key = system.operator_key
        self._port = int(system.http_url.rpartition(":")[2])
        self._open: list[socket.socket] = []

    def connect(self, port: int = 0) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", port or self._port), timeout=60, source_address=(ELSEWHERE, 0))
        self._open.append(made)
        return made

    def send(self, data: bytes, port: int = 0) -> socket.socket:
        """Send what the gateway, or who else has the port, takes of it, over a new connection."""
        made = self.connect(port)
        with contextlib.suppress(OSError):
            made.sendall(data)
        return made

    def flood(self, connection: socket.socket, piece: bytes, seconds: float = SECONDS) -> None:
        """Send the same again and again, until the gateway has enough or the time is over."""
        end = time.monotonic() + seconds
        connection.settimeout(seconds)
        with contextlib.suppress(OSError):
            while time.monotonic() < end:
                connection.sendall(piece)

    def authorized(self, body: bytes, head: bytes = b"") -> bytes:
        return HEAD + head + b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b" % (
            self.key.encode(), len(body), body,
        )  # fmt: skip

    def close(self) -> None:
        for connection in self._open:
            connection.close()


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "hello", "messages": [{"role": "user", "content": "Hi"}]} | fields).encode()


CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
PARTS = [{"type": "x" * 30}] * 90_000


def trailers(attacker: Attacker) -> None:
    attacker.flood(attacker.send(CHUNKED), b"x-user-id: " + b"a" * 1000 + b"\r\n")
    attacker.flood(attacker.send(CHUNKED + b"x: "), b"a" * 65536)


def bodies_that_do_not_come(attacker: Attacker) -> None:
    for _ in range(300):
        attacker.send(HEAD + b"content-length: 1000000\r\n\r\n{")


def heads_that_do_not_end(attacker: Attacker) -> None:
    for _ in range(300):
        attacker.send(HEAD + b"x: ")


def nothing_said(attacker: Attacker) -> None:
    for _ in range(400):
        attacker.connect()


def long_heads(attacker: Attacker) -> None:
    for piece in (b"a: b\r\n" * 1000, b"a" * 65536, b"\r\n" * 30_000, b" folded\r\n" * 5000):
        attacker.flood(attacker.send(b"GET /livez HTTP/1.1\r\n"), piece, 0.5)


def pipelined(attacker: Attacker) -> None:
    attacker.flood(attacker.send(b""), b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n" * 200)


def keys_that_nobody_made(attacker: Attacker) -> None:
    asked = [
        attacker.send(
            b"GET /v1/agents HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n" % new_api_key().encode()
        )
        for _ in range(100)
    ]
    assert {one.recv(12) for one in asked} <= {b"HTTP/1.1 401", b"HTTP/1.1 429", b"HTTP/1.1 503"}


def refused_without_end(attacker: Attacker) -> None:
    log = attacker.system.gateways[0].log
    before = log.stat().st_size
    attacker.flood(attacker.connect(), b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n" * 10)
    for _ in range(60):
        attacker.send(b"GET /v1/agents HTTP/1.1\r\nhost: x\r\n\r\n" * 10)
    assert log.stat().st_size - before < 400_000


def tiny_chunks(attacker: Attacker) -> None:
    connection = attacker.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    attacker.flood(connection, b"1;" + b"e" * 10 + b"\r\n \r\n" * 1000)
    attacker.flood(attacker.send(HEAD + b"transfer-encoding: chunked\r\n\r\n"), b"1\r\n \r\n" * 1000)


def grpc_metadata(attacker: Attacker) -> None:
    options = [("grpc.max_metadata_size", 64 * 1024 * 1024), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(attacker.system.grpc_target, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for _ in range(20):
            metadata = [(f"x-{number}", "a" * 10_000) for number in range(100)]
            with pytest.raises(grpc.RpcError):
                stub.Check(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=10)


def ends_at_each_phase(attacker: Attacker) -> None:
    """Half-closed and reset, after nothing, in mid-head, mid-body, behind the request, while it is answered."""
    whole = attacker.authorized(chat())
    for sent in (b"", HEAD[:20], HEAD, whole[:-5], whole, whole * 3, attacker.authorized(chat(stream=True)), CHUNKED):
        for _ in range(10):
            half = attacker.send(sent)
            with contextlib.suppress(OSError):
                half.shutdown(socket.SHUT_WR)
            reset = attacker.send(sent)
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reset.close()


def odd_requests(attacker: Attacker) -> None:
    """Ranges, upgrades, queries of any size: each has its own answer, and no upgrade is taken."""
    ranges = b"range: bytes=" + b"0-1," * 5000 + b"0-1\r\n"
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: AAAA\r\nsec-websocket-version: 13\r\n"
    h2c = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAAA\r\n"
    key = b"authorization: Bearer %b\r\n" % attacker.key.encode()
    for target, headers, statuses in (
        (b"/docs/swagger-ui-bundle.js", ranges, (200,)),
        (b"/v1/agents", key + upgrade, (200,)),
        (b"/console", h2c, (200, 307, 308)),
        (b"/v1/agents?" + b"a=b&" * 7000, key, (400,)),
        (b"/v1/agents?filter=" + b"(" * 30_000, key, (400,)),
        (b"/livez?" + b"%00" * 9000, b"", (200,)),
        (b"/livez?" + b"a" * 40_000, b"", (431,)),
    ):
        for _ in range(5):
            made = attacker.send(b"GET %b HTTP/1.1\r\nhost: x\r\n%b\r\n" % (target, headers))
            status = int(made.recv(12)[9:12])
            assert status in statuses, (target[:40], status)


def lines_for_the_log(attacker: Attacker) -> None:
    """What is sent in headers, ids and names of models begins no line, and is not logged at any length."""
    log = attacker.system.gateways[0].log
    before = log.stat().st_size
    key = b"authorization: Bearer %b\r\n" % attacker.key.encode()
    for text in (b"\x1b[2J\xe2\x80\xae", b"a" * 20_000, b'"}{"event": "forged"}'):
        head = b"x-request-id: %b\r\nx-user-id: %b\r\nuser-agent: %b\r\n" % (text, text[:200], text)
        attacker.send(b"GET /v1/sessions/%b HTTP/1.1\r\nhost: x\r\n%b%b\r\n" % (b"%1b%0a" + text[:9], key, head)).recv(
            12
        )
    for text in ("\x1b[2J\nforged", "m" * 100_000):
        for body in (chat(model=text), chat(session_id=text), chat(user=text)):
            attacker.send(attacker.authorized(body)).recv(12)
    lines = log.read_bytes()[before:].splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert max(map(len, lines), default=0) < 4000
    assert not any(b"forged" in json.dumps(json.loads(line).get("event")).encode() for line in lines)


def probes_without_number(attacker: Attacker) -> None:
    """Of the gateway, and of the port of metrics of another service, which answers others meanwhile."""
    attacker.flood(attacker.connect(), b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n" * 10, 0.5)
    port = METRICS_PORTS[0]
    for path in (b"/readyz", b"/metrics"):
        for _ in range(150):
            with contextlib.suppress(OSError):
                attacker.send(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path, port)
    assert httpx.get(f"http://127.0.0.1:{port}/livez", timeout=60, trust_env=False).status_code == 200


WITHOUT_CREDENTIALS: list[Callable[[Attacker], None]] = [
    trailers, bodies_that_do_not_come, heads_that_do_not_end, nothing_said, long_heads, pipelined,
    keys_that_nobody_made, refused_without_end, tiny_chunks, grpc_metadata, ends_at_each_phase, odd_requests,
    lines_for_the_log, probes_without_number,
]  # fmt: skip


def violations_that_nobody_reads(attacker: Attacker) -> None:
    body = chat(messages=[{"role": "user", "content": PARTS}])
    for _ in range(12):
        attacker.send(attacker.authorized(body))


def wide_json(attacker: Attacker) -> None:
    for fields in (
        {"messages": [{"role": "user", "content": "a"}] * 100_000},
        {"response_format": {"a": [1] * 1_500_000}},
        {"metadata": {str(number): "a" for number in range(200_000)}},
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"a": [{}] * 500_000}}}]},
    ):
        assert b" 400 " in attacker.send(attacker.authorized(chat(**fields))).recv(64)


def wide_json_of_agents(attacker: Attacker) -> None:
    with attacker.system.client() as client:
        for fields in ({"parameters": {"a": [0] * 1_000_000}}, {"labels": {str(n): "a" for n in range(100_000)}}):
            body = {"id": "wide", "name": "W", "template_id": "assistant", "model": {"provider": PROVIDER, "name": "m"}}
            assert client.post("/v1/agents", json=body | fields).status_code == 400


def gzip_bombs(attacker: Attacker) -> None:
    bomb = gzip.compress(b" " * 200 * 1024 * 1024, 9)
    for _ in range(8):
        answer = attacker.send(attacker.authorized(bomb, b"content-encoding: gzip\r\n")).recv(64)
        assert b" 400 " in answer or b" 413 " in answer


def streams_that_nobody_reads(attacker: Attacker) -> None:
    for _ in range(60):
        attacker.send(attacker.authorized(chat(stream=True)) * 10)


def interruptions_of_one_session(attacker: Attacker) -> None:
    request = attacker.authorized(chat(session_id="contended"), b"x-session-busy: interrupt\r\n")
    asked = [attacker.send(request) for _ in range(64)]
    assert {one.recv(12) for one in asked} <= {b"HTTP/1.1 200", b"HTTP/1.1 409"}


WITH_A_KEY: list[Callable[[Attacker], None]] = [
    violations_that_nobody_reads, wide_json, wide_json_of_agents, gzip_bombs, streams_that_nobody_reads,
    interruptions_of_one_session,
]  # fmt: skip


@pytest.mark.parametrize("attack", [*WITHOUT_CREDENTIALS, *WITH_A_KEY], ids=lambda attack: attack.__name__)
def test_an_attack_of_a_caller_is_no_matter_to_others(system: System, attack: Callable[[Attacker], None]) -> None:
    attacker = Attacker(system)
    try:
        with Bystander(system).watching():
            attack(attacker)
            attacker.close()
    finally:
        attacker.close()


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_of_a_provider_is_no_matter_to_others(system: System, attack: str) -> None:
    found: list[tuple[bool, int, str]] = []

    def ask(stream: bool) -> None:
        with system.client() as client:
            body = {"model": attack, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
            answer = client.post("/v1/chat/completions", json=body)
            found.append((stream, answer.status_code, answer.text))

    asking = [threading.Thread(target=ask, args=(stream,), daemon=True) for stream in (False, True, True)]
    with Bystander(system).watching():
        for one in asking:
            one.start()
        for one in asking:
            one.join(90)
    assert len(found) == 3, "each is answered"
    for stream, status, text in found:
        if attack == "trailing" and not stream:
            assert status == 200
            assert "poison" not in text
            continue
        assert status in (200, 429, 500, 502, 503, 504)
        assert "Traceback" not in text
        if status != 200 or "error" in text:
            assert "provider" in text
    answer = system.chat("hello", "Hi")
    assert answer.json()["choices"][0]["message"]["content"] == "good"


def test_the_gateway_lives_and_no_fault_was_ours(system: System) -> None:
    assert system.gateways[0].running
    assert "Traceback" not in Path(system.gateways[0].log).read_text()
