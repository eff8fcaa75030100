"""Certificates from files, read again when they change, and the credentials that gRPC makes of them."""

import asyncio
import contextlib
import functools
import hashlib
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import NoReturn

import grpc
import structlog

from servicekit.errors import StartupError
from servicekit.files import read_regular_file
from servicekit.supervision import cancel_and_wait, supervise

CHECK_SECONDS = 1.0
"""How often the files are looked at: a changed certificate is in use this long after it was written, at the latest."""

_MAX_BYTES = 1024 * 1024

log = structlog.get_logger("servicekit.tls")


class BadCertificates(Exception):
    """The files do not hold a certificate, the key that belongs to it and the authorities; the message says why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificate chain, its key and the trusted authorities are, each in PEM.

    Without `ca` no certificate is asked for.
    """

    cert: str
    key: str
    ca: str = ""

    def read(self) -> "Material":
        """Returns what the files hold. Raises `BadCertificates` unless the parts parse and the key fits."""
        before = self._bytes()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.cert, self.key, password=_refuse_a_password)
        except (ssl.SSLError, OSError) as error:
            raise BadCertificates(f"{self.cert} and {self.key}: {_text_of(error)}") from error
        if self.ca:
            _check_authorities(self.ca, before[2])
        if self._bytes() != before:
            raise BadCertificates("they changed while they were read")
        return Material(*before, server_context=context)

    def marks(self) -> tuple[object, ...]:
        """Returns what differs when a file was written, or a link on its way (Kubernetes' `..data`) was moved."""
        found: list[object] = []
        for path in filter(None, (self.cert, self.key, self.ca)):
            try:
                status = os.stat(path)
            except OSError:
                found.append(None)
            else:
                found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def _bytes(self) -> tuple[bytes, bytes, bytes]:
        return _content(self.cert), _content(self.key), _content(self.ca) if self.ca else b""


@dataclass(frozen=True, slots=True)
class Material:
    """Certificates that were found to be good: PEM, and a context for TLS servers other than gRPC's."""

    cert: bytes
    key: bytes = field(repr=False)
    ca: bytes
    server_context: ssl.SSLContext = field(repr=False, compare=False)

    def mark(self) -> str:
        """Returns a short digest of certificate and authorities, to distinguish them in a log."""
        return hashlib.sha256(self.cert + self.ca).hexdigest()[:16]


class Certificates:
    """The certificates of this process, always the newest good ones."""

    def __init__(self, files: TlsFiles, material: Material) -> None:
        self._files = files
        self._marks = files.marks()
        self._complained: tuple[object, ...] | None = None
        self._changed = asyncio.Event()
        self.material = material

    async def after(self, known: Material) -> Material:
        """Waits until there are others than `known`, and returns them."""
        while self.material is known:
            await self._changed.wait()
        return self.material

    async def follow(self, every: float) -> NoReturn:
        """Reads the files again whenever they change. While they are not good, the ones before stay in use."""
        while True:
            await asyncio.sleep(every)
            await self._look()

    async def _look(self) -> None:
        # The marks are taken before the files are read: what is written in between shows at the next look.
        marks = await asyncio.to_thread(self._files.marks)
        if marks == self._marks:
            return
        try:
            material = await asyncio.to_thread(self._files.read)
        except BadCertificates as error:
            if marks != self._complained:
                self._complained = marks  # once; the certificates before stay in use
                log.warning("certificates_rejected", error=str(error))
            return
        self._marks = marks
        if material == self.material:
            return
        self.material = material
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        log.info("certificates_loaded", mark=material.mark())


@contextlib.asynccontextmanager
async def certificates(files: TlsFiles | None, every: float = CHECK_SECONDS) -> AsyncIterator[Certificates | None]:
    """Keeps the certificates in `files` current while open, checked once in `every` seconds; None without files.

    Raises `StartupError` when the files are not good to begin with.
    """
    if files is None:
        yield None
        return
    try:
        found = Certificates(files, files.read())
    except BadCertificates as error:
        raise StartupError(f"TLS certificates: {error}") from error
    following = asyncio.create_task(supervise("certificates", lambda: found.follow(every)), name="certificates")
    try:
        yield found
    finally:
        await cancel_and_wait(following)


def server_credentials(source: Certificates) -> grpc.ServerCredentials:
    """Returns credentials for one port of a gRPC server; every new connection gets the newest certificates.

    Where the material has authorities, a client must show a certificate of theirs. grpcio knows no port on which a
    client may show one: either all must, or none is asked.
    """
    served = source.material

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        material = source.material
        if material is served:
            return None
        served = material
        return _configuration(material)

    return grpc.dynamic_ssl_server_credentials(_configuration(served), newest, bool(served.ca))  # type: ignore[arg-type]


def channel_credentials(material: Material) -> grpc.ChannelCredentials:
    """Returns credentials for a channel to a peer, which must show a certificate for the name it is called by."""
    return grpc.ssl_channel_credentials(material.ca, material.key, material.cert)


def server_context(source: Certificates) -> ssl.SSLContext:
    """Returns a context for a TLS server; every new connection gets the newest certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def newest(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = source.material.server_context

    context.sni_callback = newest  # asked without a name, too
    return context


def system_authorities() -> ssl.SSLContext:
    """Returns what HTTPS clients trust by default: the system's authorities, or `SSL_CERT_FILE` and `SSL_CERT_DIR`.

    Clients share it, since reading a hundred certificates takes longer than most of their calls: do not change it.
    """
    return _trusting(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.lru_cache(maxsize=4)
def _trusting(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    return ssl.create_default_context()


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.cert)], root_certificates=material.ca or None
    )


def _content(path: str) -> bytes:
    try:
        return read_regular_file(path, _MAX_BYTES)
    except OSError as error:
        raise BadCertificates(f"{path}: {_text_of(error)}") from error


def _check_authorities(path: str, content: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise BadCertificates(f"{path}: {_text_of(error)}") from error
    if not context.cert_store_stats()["x509"]:
        raise BadCertificates(f"{path}: holds no certificate")


def _refuse_a_password() -> NoReturn:
    raise BadCertificates("the key is encrypted: give one that is not")


def _text_of(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return "is not PEM"
