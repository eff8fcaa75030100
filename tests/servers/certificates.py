"""Authorities and certificates for tests, made on the fly."""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """Issues certificates; `pem` is its own."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._builder(self._name, self._key, DAY).add_extension(x509.BasicConstraints(True, None), True)
        self.pem = _pem(certificate.sign(self._key, hashes.SHA256()))

    def issue(self, *names: str, lifetime: datetime.timedelta = DAY) -> tuple[bytes, bytes]:
        """Return a certificate for these names and its key, both in PEM; it has expired when `lifetime` is negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        builder = self._builder(subject, key, lifetime)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return _pem(builder.sign(self._key, hashes.SHA256())), private

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + lifetime)
        )


class CertificateFolder:
    """The three files of one service, `tls.crt`, `tls.key` and `ca.crt`, as cert-manager names them."""

    def __init__(self, folder: Path, authority: Authority, *names: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.cert, self.key, self.ca = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"
        self.write(authority, *names)

    def write(self, authority: Authority, *names: str, trust: Sequence[Authority] = (), lifetime: float = 1) -> None:
        """Write a new certificate of `authority`; `trust` (the authority alone, when empty) goes into `ca.crt`."""
        cert, key = authority.issue(*names, lifetime=lifetime * DAY)
        self.ca.write_bytes(b"".join(trusted.pem for trusted in trust or [authority]))
        self.cert.write_bytes(cert)
        self.key.write_bytes(key)

    def env(self, *peers: str) -> dict[str, str]:
        """Return the settings of a service that has these files and accepts these peers."""
        return {
            "PARLEY_TLS_CERT_FILE": str(self.cert),
            "PARLEY_TLS_KEY_FILE": str(self.key),
            "PARLEY_TLS_CA_FILE": str(self.ca),
            "PARLEY_TLS_PEERS": ",".join(peers),
        }


def _general(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
