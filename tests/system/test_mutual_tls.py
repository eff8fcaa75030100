"""The whole system with mutual TLS between its services, by which they know each other, and TLS at its edges."""

import concurrent.futures
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from parley.session.v1 import session_service_pb2
from parley_client import AccessDenied, Client, Servers, Tls, Unavailable
from servicekit.tls import TlsFiles
from tests.servers.certificates import Authority, CertificateFolder
from tests.servers.system import OpenSystem, System

GATEWAY, SESSION = "spiffe://parley.test/gateway", "spiffe://parley.test/session"
OPERATOR_KEY = secrets.token_urlsafe(32)
SEEN_SECONDS = 60.0
"""In which services, which look every second, have seen that files changed."""


class Certified:
    """A system, the authority behind it and each service's files."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        names = {"config": (), "session": (SESSION,), "gateway": (GATEWAY,), "edge": ()}
        self.names = {name: ("localhost", "127.0.0.1", *more) for name, more in names.items()}
        self.files = {name: CertificateFolder(folder / name, self.authority, *own) for name, own in self.names.items()}

    def reissue(self, system: System, issuer: Authority, trust: list[Authority]) -> None:
        """Write other certificates, and wait until every service has those of its own."""
        for name, files in self.files.items():
            files.write(issuer, *self.names[name], trust=trust)
        has = [(system.config, "config"), (system.session, "session"), (system.gateways[1], "edge")]
        has += [(gateway, "gateway") for gateway in system.gateways]
        deadline = time.monotonic() + SEEN_SECONDS
        for service, name in has:
            while self.mark(name) not in service.log.read_text():
                assert time.monotonic() < deadline, f"{service.name} goes on with the certificates before"
                time.sleep(0.05)

    def mark(self, name: str) -> str:
        """Return what a service logs of the certificates that it has read."""
        files = self.files[name]
        return TlsFiles(str(files.cert), str(files.key), "" if name == "edge" else str(files.ca)).read().mark()


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return Certified(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def system(certified: Certified, open_system: OpenSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    files = certified.files
    edge = {
        "PARLEY_GATEWAY_EDGE_CERT_FILE": str(files["edge"].cert),
        "PARLEY_GATEWAY_EDGE_KEY_FILE": str(files["edge"].key),
    }
    with open_system(
        "system",
        env={"PARLEY_AUTH": "required", "PARLEY_OPERATOR_KEY": OPERATOR_KEY},
        operator_key=OPERATOR_KEY,
        config_env=files["config"].env(GATEWAY, SESSION),
        session_env=files["session"].env(GATEWAY),
        gateway_env=files["gateway"].env(),
    ) as running:
        running.new_gateway(edge).start()
        running.create_agent("tls-agent")
        yield running


def test_turns_run_over_mutual_tls(system: System) -> None:
    first = system.chat("tls-agent", "hello", session_id="secret")
    again = system.chat("tls-agent", "again", session_id="secret")
    assert (first.status_code, again.status_code) == (200, 200), first.text + again.text
    assert len(system.model.prompts[-1]) > 2  # the window came over TLS too


def test_a_service_takes_no_calls_of_others(system: System, certified: Certified) -> None:
    files = certified.files["config"]  # of the right authority, but config_svc calls nobody
    request, target = session_service_pb2.GetSessionRequest(id="secret"), system.session.grpc_target
    certified_otherwise = Servers(session=target, tls=Tls(files.ca, files.cert, files.key), retry=False)
    with Client(certified_otherwise) as client, pytest.raises(AccessDenied):
        client.sessions.GetSession(request, timeout=5)
    with Client(Servers(session=target, retry=False)) as client, pytest.raises(Unavailable):
        client.sessions.GetSession(request, timeout=5)


def test_the_edges_speak_tls_where_they_have_certificates(system: System, certified: Certified) -> None:
    gateway = system.gateways[1]
    trust = ssl.create_default_context(cadata=certified.authority.pem.decode())
    url = gateway.http_url.replace("http://", "https://")
    answer = httpx.get(f"{url}/livez", verify=trust, timeout=30, trust_env=False)
    assert answer.status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{gateway.http_url}/livez", timeout=30, trust_env=False)
    assert gateway.serves()  # gRPC too, and clients need no certificate of their own


def test_all_certificates_change_under_load_without_a_failed_turn(system: System, certified: Certified) -> None:
    """An operator's change of authority: trust both, then certificates of the new one, then trust only that."""
    stop = threading.Event()
    old, new = certified.authority, Authority("the next one")

    def turns(number: int) -> list[int]:
        statuses = []
        while not stop.is_set():
            statuses.append(system.chat("tls-agent", "go on", session_id=f"load-{number}").status_code)
        return statuses

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        running = [pool.submit(turns, number) for number in range(3)]
        try:
            certified.reissue(system, old, [old, new])
            certified.reissue(system, new, [old, new])
            certified.reissue(system, new, [new])
        finally:
            stop.set()
        statuses = [status for end in running for status in end.result(timeout=90)]
    assert len(statuses) >= 3
    assert set(statuses) == {200}
    system.session.restart()  # with nothing but the new ones, and its peers know them
    deadline = time.monotonic() + 60
    while (answer := system.chat("tls-agent", "still there")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
