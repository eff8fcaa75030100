import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicekit.channels import call, open_channel
from servicekit.errors import RemoteError, StartupError, Unavailable
from servicekit.peers import peer_names
from servicekit.rotation import RotatingChannel
from servicekit.server import GrpcServer, serving
from servicekit.settings import ServiceSettings
from servicekit.tls import BadCertificates, Certificates, TlsFiles, certificates, server_context, system_authorities
from tests.servers.certificates import Authority, CertificateFolder

GATEWAY = "spiffe://parley.test/gateway"
QUICK = 0.02
HELLO = StringValue(value="hello")


def files_of(folder: CertificateFolder) -> TlsFiles:
    return TlsFiles(str(folder.cert), str(folder.key), str(folder.ca))


async def echo(request: StringValue, context: Any) -> StringValue:
    return request


@contextlib.asynccontextmanager
async def serve(
    tls: Certificates | None, method: Callable[..., Any] = echo, peers: tuple[str, ...] = (GATEWAY, "gateway")
) -> AsyncIterator[GrpcServer]:
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString
        )
    }

    def add(_: object, server: Any) -> None:
        server.add_registered_method_handlers("test.Echo", handlers)

    settings = ServiceSettings(drain_timeout=1, tls_cert_file="a", tls_key_file="b", tls_ca_file="c", tls_peers=peers)
    async with serving(settings, add=[(add, None)], service_names=["test.Echo"], tls=tls) as server:
        yield server


async def ask(channel: grpc.aio.Channel, timeout: float = 60) -> str:
    method: Any = channel.unary_unary(
        "/test.Echo/Echo",
        request_serializer=StringValue.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    return str((await call(method, HELLO, timeout=timeout)).value)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server_files(tmp_path: Path, authority: Authority) -> CertificateFolder:
    return CertificateFolder(tmp_path / "server", authority, "localhost", "127.0.0.1")


@pytest.fixture
def client_files(tmp_path: Path, authority: Authority) -> CertificateFolder:
    return CertificateFolder(tmp_path / "client", authority, GATEWAY)


async def test_a_peer_on_the_list_is_accepted(server_files: CertificateFolder, client_files: CertificateFolder) -> None:
    seen: list[tuple[str, ...]] = []

    async def note(request: StringValue, context: Any) -> StringValue:
        seen.append(peer_names(context))
        return request

    async with (
        certificates(files_of(server_files)) as ours,
        certificates(files_of(client_files)) as theirs,
        serve(ours, note) as server,
        open_channel(f"127.0.0.1:{server.port}", theirs) as channel,
    ):
        assert await ask(channel) == "hello"
    assert seen == [(GATEWAY,)]


@pytest.mark.parametrize("names", [("worker",), ("spiffe://parley.test/gateway/x",), ("xgateway", "gateway.x"), ()])
async def test_a_peer_that_is_not_on_the_list_is_refused_by_name(
    tmp_path: Path, authority: Authority, server_files: CertificateFolder, names: tuple[str, ...]
) -> None:
    other = CertificateFolder(tmp_path / "other", authority, *names)
    async with (
        certificates(files_of(server_files)) as ours,
        certificates(files_of(other)) as theirs,
        serve(ours) as server,
        open_channel(f"127.0.0.1:{server.port}", theirs) as channel,
    ):
        with pytest.raises(RemoteError, match="PARLEY_TLS_PEERS") as caught:
            await ask(channel)
        assert (caught.value.code.name, caught.value.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_handshake_refuses_whom_the_authority_does_not_vouch_for(
    tmp_path: Path, authority: Authority, server_files: CertificateFolder
) -> None:
    expired, foreign = tmp_path / "expired", tmp_path / "foreign"
    CertificateFolder(expired, authority, GATEWAY).write(authority, GATEWAY, lifetime=-1)
    other = CertificateFolder(foreign, Authority("another"), GATEWAY)
    other.ca.write_bytes(authority.pem)  # it trusts us; we don't trust it
    async with certificates(files_of(server_files)) as ours, serve(ours) as server:
        for folder in (expired, foreign):
            files = TlsFiles(str(folder / "tls.crt"), str(folder / "tls.key"), str(folder / "ca.crt"))
            async with (
                certificates(files) as theirs,
                open_channel(f"127.0.0.1:{server.port}", theirs) as channel,
            ):
                with pytest.raises(Unavailable):
                    await ask(channel)
        root = grpc.ssl_channel_credentials(authority.pem)
        async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", root) as without_certificate:
            with pytest.raises(Unavailable):
                await ask(without_certificate)
        async with open_channel(f"127.0.0.1:{server.port}") as in_the_clear:
            with pytest.raises(Unavailable):
                await ask(in_the_clear)


async def test_a_server_must_have_the_name_it_is_called_by(
    tmp_path: Path, authority: Authority, client_files: CertificateFolder
) -> None:
    elsewhere = CertificateFolder(tmp_path / "elsewhere", authority, "elsewhere.test")
    async with (
        certificates(files_of(elsewhere)) as ours,
        certificates(files_of(client_files)) as theirs,
        serve(ours) as server,
        open_channel(f"127.0.0.1:{server.port}", theirs) as channel,
    ):
        with pytest.raises(Unavailable):
            await ask(channel)
        with pytest.raises(StartupError, match="must be one name"):
            open_channel("127.0.0.1:1,127.0.0.1:2", theirs)


async def test_certificates_change_under_load_and_no_call_fails(
    tmp_path: Path, authority: Authority, server_files: CertificateFolder, client_files: CertificateFolder
) -> None:
    """Both sides go over to another authority, in the steps that an operator takes, and calls go on all the time."""
    seen: set[tuple[str, ...]] = set()
    entered, all_changed = asyncio.Event(), asyncio.Event()

    async def slow(request: StringValue, context: Any) -> StringValue:
        seen.add(peer_names(context))
        entered.set()
        if request.value == "long":
            await all_changed.wait()
        return request

    next_authority = Authority("next")
    async with (
        certificates(files_of(server_files), QUICK) as ours,
        certificates(files_of(client_files), QUICK) as theirs,
        serve(ours, slow) as server,
        open_channel(f"localhost:{server.port}", theirs) as channel,
    ):
        assert ours is not None
        assert theirs is not None
        method: Any = channel.unary_unary(
            "/test.Echo/Echo",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )
        load = [asyncio.create_task(_call_on(method)) for _ in range(8)]
        long = asyncio.create_task(call(method, StringValue(value="long"), timeout=60))
        await entered.wait()
        both = [authority, next_authority]
        steps: list[tuple[CertificateFolder, Certificates, Authority, list[Authority], tuple[str, ...]]] = [
            (server_files, ours, authority, both, ("localhost",)),
            (client_files, theirs, authority, both, (GATEWAY,)),
            (server_files, ours, next_authority, both, ("localhost",)),
            (client_files, theirs, next_authority, [next_authority], (GATEWAY, "gateway")),
            (server_files, ours, next_authority, [next_authority], ("localhost",)),
        ]
        for folder, watched, issuer, trust, names in steps:
            before = watched.material
            folder.write(issuer, *names, trust=trust)
            await asyncio.wait_for(watched.after(before), 60)
            await asyncio.sleep(0.15)
        async with asyncio.timeout(60):
            while (GATEWAY, "gateway") not in seen:
                await asyncio.sleep(0.01)
        assert not long.done()
        all_changed.set()
        for task in load:
            task.cancel()
        ends = await asyncio.gather(*load, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
        assert (await long).value == "long"


async def _call_on(method: Any) -> None:
    while True:
        await call(method, StringValue(value="short"), timeout=60)


async def test_a_change_that_the_peer_refuses_leaves_the_old_connection_in_use(
    tmp_path: Path, authority: Authority, server_files: CertificateFolder, client_files: CertificateFolder
) -> None:
    async with (
        certificates(files_of(server_files), QUICK) as ours,
        certificates(files_of(client_files), QUICK) as theirs,
        serve(ours) as server,
        open_channel(f"localhost:{server.port}", theirs) as channel,
    ):
        assert theirs is not None
        await ask(channel)
        client_files.write(Authority("nobody knows"), GATEWAY, trust=[authority])
        await asyncio.wait_for(theirs.after(theirs.material), 60)
        for _ in range(20):
            assert await ask(channel) == "hello"
            await asyncio.sleep(0.02)
        refused = theirs.material
        client_files.write(authority, "worker")
        await asyncio.wait_for(theirs.after(refused), 60)
        with pytest.raises(RemoteError, match="PARLEY_TLS_PEERS"):
            async with asyncio.timeout(60):
                while True:
                    await ask(channel)
                    await asyncio.sleep(0.02)


async def test_half_written_files_are_not_taken(server_files: CertificateFolder, authority: Authority) -> None:
    async with certificates(files_of(server_files), QUICK) as source:
        assert source is not None
        first = source.material
        cert, key = authority.issue("localhost")
        for half_written in (
            lambda: server_files.cert.write_bytes(cert[:100]),
            lambda: server_files.cert.write_bytes(b""),
            lambda: server_files.cert.write_bytes(cert),  # the key is still the old one
            lambda: server_files.key.write_bytes(key[:50]),
            server_files.key.unlink,
        ):
            half_written()
            await asyncio.sleep(4 * QUICK)
            assert source.material is first
        server_files.key.write_bytes(key)
        assert (await asyncio.wait_for(source.after(first), 60)).cert == cert


def test_files_that_change_while_they_are_read_are_not_taken(
    server_files: CertificateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was checked must be what is used."""
    files = files_of(server_files)
    contents = iter([files._bytes(), (b"another", b"pair", b"")])
    monkeypatch.setattr(TlsFiles, "_bytes", lambda _: next(contents))
    with pytest.raises(BadCertificates, match="changed while they were read"):
        files.read()


async def test_a_link_that_moves_is_a_change(tmp_path: Path, authority: Authority) -> None:
    """Kubernetes writes a new folder and moves the link `..data` to it; the files' own links stay."""
    for name in ("..one", "..two"):
        CertificateFolder(tmp_path / name, authority, "localhost")
    (tmp_path / "..data").symlink_to("..one")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    files = TlsFiles(*(str(tmp_path / name) for name in ("tls.crt", "tls.key", "ca.crt")))
    async with certificates(files, QUICK) as source:
        assert source is not None
        first = source.material
        (tmp_path / "..new").symlink_to("..two")
        os.replace(tmp_path / "..new", tmp_path / "..data")
        assert (await asyncio.wait_for(source.after(first), 60)).cert == (tmp_path / "..two" / "tls.crt").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda files: files.key.unlink(), "tls.key: no such file"),
        (lambda files: files.key.write_bytes(Authority().issue("x")[1]), "mismatch"),
        (lambda files: files.cert.write_bytes(b"no certificate"), "tls.crt"),
        (lambda files: files.ca.write_bytes(b""), "ca.crt"),
        (lambda files: files.ca.write_bytes(b"\xff"), "ca.crt: is not PEM"),
        (lambda files: files.ca.write_bytes(b"x" * 2**21), "ca.crt: is larger than 1048576 bytes"),
    ],
)
async def test_a_start_with_bad_files_names_what_is_wrong(
    server_files: CertificateFolder, spoil: Callable[[CertificateFolder], object], message: str
) -> None:
    spoil(server_files)
    with pytest.raises(StartupError, match=f"TLS certificates: .*{message}"):
        async with certificates(files_of(server_files)):
            pass


async def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(
    server_files: CertificateFolder,
) -> None:
    from cryptography.hazmat.primitives import serialization as form

    key: Any = form.load_pem_private_key(server_files.key.read_bytes(), None)
    server_files.key.write_bytes(
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(StartupError, match="the key is encrypted"):
        async with certificates(files_of(server_files)):
            pass


async def test_other_tls_servers_get_new_certificates_too(
    server_files: CertificateFolder, authority: Authority
) -> None:
    async with certificates(TlsFiles(str(server_files.cert), str(server_files.key)), QUICK) as source:
        assert source is not None
        server = await asyncio.start_server(
            lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server_context(source)
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            first = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
            assert first.encode() == source.material.cert
            before = source.material
            server_files.write(authority, "localhost")
            await asyncio.wait_for(source.after(before), 60)
            second = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
            assert second.encode() == server_files.cert.read_bytes() != first.encode()


async def test_no_files_mean_no_tls() -> None:
    async with certificates(None) as source:
        assert source is None
    assert not isinstance(open_channel("127.0.0.1:1"), RotatingChannel)


def test_clients_share_what_they_trust_until_the_environment_names_others(
    authority: Authority, server_files: CertificateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = system_authorities()
    assert system_authorities() is trusted
    monkeypatch.setenv("SSL_CERT_FILE", str(server_files.ca))
    assert [found["subject"] for found in system_authorities().get_ca_certs()] == [
        found["subject"] for found in ssl.create_default_context(cafile=str(server_files.ca)).get_ca_certs()
    ]
