"""The overlay `small` makes its own keys and certificates, and needs nothing of the cluster."""

import base64
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.deploy.manifests import environment, make_secrets, objects, workload
from tests.servers.certificates import Authority, CertificateFolder

SERVICES = ("config-svc", "session-svc", "chat-gateway")


class FakeApi:
    """The part of the Kubernetes API that makes secrets."""

    def __init__(self, folder: Path) -> None:
        self.secrets: dict[str, Any] = {}
        self.failing = 0
        """How many requests more are answered by 503."""
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/api/v1/namespaces/parley-small/secrets"
                assert self.headers["Authorization"] == "Bearer a-token"
                there = asked["metadata"]["name"] in api.secrets
                if api.failing:
                    api.failing -= 1
                    self.send_response(503)
                else:
                    api.secrets.setdefault(asked["metadata"]["name"], asked)
                    self.send_response(409 if there else 201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        files = CertificateFolder(folder / "api", Authority(), "localhost", "spiffe://test/api")
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        (folder / "ca.crt").write_bytes(files.ca.read_bytes())
        (folder / "token").write_text("a-token")
        (folder / "namespace").write_text("parley-small")
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    running = FakeApi(tmp_path)
    monkeypatch.setattr(make_secrets(), "ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(running.port))
    yield running
    running.close()


def content(secret: Any) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def test_secrets_are_made_once_and_are_those_that_the_pods_want(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    make_secrets().main()
    made = {name: content(secret) for name, secret in api.secrets.items()}
    assert set(made) == {
        "parley-operator",
        "parley-postgres-app",
        "parley-redis",
        *(f"{name}-tls" for name in SERVICES),
    }
    for name in (*SERVICES, "postgres", "redis"):
        (container,) = workload("small", name).containers
        for value in environment("small", container).values():
            if value.startswith("<"):
                secret, _, key = value.strip("<>").partition("/")
                assert key in made[secret]
    assert made["parley-postgres-app"]["password"] in made["parley-postgres-app"]["uri"]
    before = json.dumps(api.secrets)
    make_secrets().main()
    assert json.dumps(api.secrets) == before
    assert capsys.readouterr().out.splitlines()[1] == "made: nothing, all is there"


def test_an_api_that_fails_for_a_while_leaves_no_half_of_the_certificates(api: FakeApi) -> None:
    api.failing = 2
    make_secrets().main()
    assert len({content(api.secrets[f"{name}-tls"])["ca.crt"] for name in SERVICES}) == 1


def test_certificates_are_of_one_authority_and_name_the_service() -> None:
    made = make_secrets().certificates("parley-small")
    assert len({one["ca.crt"] for one in made.values()}) == 1
    for name in SERVICES:
        files = made[f"{name}-tls"]
        certificate = x509.load_pem_x509_certificate(files["tls.crt"].encode())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(files["ca.crt"].encode()))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://parley/{name}"]
        assert name in names.get_values_for_type(x509.DNSName)
        key = serialization.load_pem_private_key(files["tls.key"].encode(), None)
        assert key.public_key() == certificate.public_key()


def test_it_needs_no_operator_and_no_custom_resource() -> None:
    for found in objects("small"):
        group = found["apiVersion"].rpartition("/")[0]
        assert group in ("", "apps", "batch", "networking.k8s.io", "rbac.authorization.k8s.io"), found["kind"]
