"""Makes the secrets of this overlay in the pod's own namespace, each of them once; one that is there stays as it is.

An operator key, the stores' passwords with the URLs that hold them, and an authority of our own with a certificate for
each service. The authority's key is kept nowhere: for new certificates delete the secrets `*-tls` and apply again.
"""

import base64
import datetime
import json
import os
import secrets
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVICES = ("config-svc", "session-svc", "chat-gateway")
LIFETIME = datetime.timedelta(days=3650)
"""Nobody renews them here: that is cert-manager's, in the production overlay."""
ACCOUNT = Path(os.environ.get("ACCOUNT_FOLDER", "/var/run/secrets/kubernetes.io/serviceaccount"))
WAIT_SECONDS = 60.0
HTTP_CONFLICT = 409
HTTP_PASSING = (429, 500, 502, 503, 504)


def plain_secrets() -> dict[str, dict[str, str]]:
    """Return the secrets that are random: name to content."""
    postgres, redis = secrets.token_hex(24), secrets.token_hex(24)
    return {
        "parley-operator": {"key": secrets.token_hex(32)},
        "parley-postgres-app": {"password": postgres, "uri": f"postgresql://parley:{postgres}@postgres:5432/parley"},
        "parley-redis": {"password": redis, "url": f"redis://:{redis}@redis:6379/0"},
    }


def certificates(namespace: str) -> dict[str, dict[str, str]]:
    """Return a certificate with its key for each service, all of one new authority: name of the secret to content."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _name("parley")
    ca = _signed(
        _builder(authority, authority, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True),
        authority_key,
    )
    made = {}
    for service in SERVICES:
        key = ec.generate_private_key(ec.SECP256R1())
        hosts = (service, f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local")
        names = [*map(x509.DNSName, hosts), x509.UniformResourceIdentifier(f"spiffe://parley/{service}")]
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = _signed(
            _builder(_name(service), authority, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            ),
            authority_key,
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        made[f"{service}-tls"] = {"tls.crt": certificate, "tls.key": pem.decode(), "ca.crt": ca}
    return made


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> str:
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


class Api:
    """The Kubernetes API, as the pod's service account sees it."""

    def __init__(self) -> None:
        self.namespace = (ACCOUNT / "namespace").read_text().strip()
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        where = f"[{host}]" if ":" in host else host
        self._url = f"https://{where}:{port}/api/v1/namespaces/{self.namespace}/secrets"
        context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def create(self, name: str, content: dict[str, str], labels: dict[str, str]) -> bool:
        """Make a secret; returns whether it was not there. Waits a minute for an API that is unreachable, or fails."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return self._create(name, content, labels)
            except urllib.error.HTTPError as error:
                passing = error.code in HTTP_PASSING and time.monotonic() < deadline
                if not passing:
                    said = error.read(500).decode(errors="replace")
                    raise SystemExit(f"secret {name}: {error.code} {said}") from None
                time.sleep(1)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SystemExit(f"secret {name}: {error}") from None
                time.sleep(1)

    def _create(self, name: str, content: dict[str, str], labels: dict[str, str]) -> bool:
        body = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels},
            "type": "kubernetes.io/tls" if "tls.crt" in content else "Opaque",
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in content.items()},
        }  # fmt: skip
        headers = {
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
            "Content-Type": "application/json",
        }
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers, method="POST")
        try:
            self._opener.open(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            if error.code == HTTP_CONFLICT:
                return False
            raise
        return True


def main() -> None:
    """Make what is not there."""
    api = Api()
    labels = {"app.kubernetes.io/part-of": "parley"}
    fresh = [name for name, content in plain_secrets().items() if api.create(name, content, labels)]
    tls = certificates(api.namespace)
    made = [name for name, content in tls.items() if api.create(name, content, labels)]
    print(f"made: {', '.join([*fresh, *made]) or 'nothing, all is there'}")
    if made and len(made) < len(tls):
        sys.exit("certificates of two authorities do not know each other: delete all secrets *-tls, then apply again")


if __name__ == "__main__":
    main()
