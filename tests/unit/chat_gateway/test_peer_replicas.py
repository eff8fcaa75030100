"""Each replica of a peer is asked for its health by itself, by its address and over TLS by its name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chat_gateway.clients.addresses import addresses_of
from chat_gateway.clients.peer_replicas import PeerReplicas
from servicekit.server import GrpcServer, serving
from servicekit.settings import ServiceSettings
from servicekit.tls import Certificates, TlsFiles, certificates
from tests.servers.certificates import Authority, CertificateFolder
from tests.servers.ports import free_port


@asynccontextmanager
async def replica(tls: Certificates | None = None) -> AsyncIterator[GrpcServer]:
    settings = ServiceSettings(drain_timeout=1)
    if tls is not None:
        settings = ServiceSettings(
            drain_timeout=1, tls_cert_file="a", tls_key_file="b", tls_ca_file="c", tls_peers=("gateway",)
        )
    async with serving(settings, add=[], service_names=["test.Echo"], tls=tls) as server:
        yield server


async def test_a_replica_serves_or_does_not_or_is_not_there() -> None:
    async with replica() as well, replica() as ill:
        await ill.set_serving("", False)
        places = [f"127.0.0.1:{port}" for port in (well.port, ill.port, free_port())]
        found = await PeerReplicas({"session_svc": ",".join(places), "config_svc": f"localhost:{well.port}"}).look()
    states = {(one.service, one.address): (one.state, one.seconds is not None) for one in found}
    assert states == {
        ("session_svc", places[0]): ("serving", True),
        ("session_svc", places[1]): ("not_serving", True),
        ("session_svc", places[2]): ("unreachable", False),
        ("config_svc", places[0]): ("serving", True),
    }


async def test_over_tls_the_certificate_is_for_the_name(tmp_path: Path) -> None:
    authority = Authority()
    server_files = CertificateFolder(tmp_path / "server", authority, "localhost")
    client_files = CertificateFolder(tmp_path / "client", authority, "gateway")
    async with (
        certificates(files_of(server_files)) as theirs,
        certificates(files_of(client_files)) as ours,
        replica(theirs) as server,
    ):
        [found] = await PeerReplicas({"config_svc": f"dns:///localhost:{server.port}"}, ours).look()
        assert (found.address, found.state) == (f"127.0.0.1:{server.port}", "serving")
        [found] = await PeerReplicas({"config_svc": f"127.0.0.1:{server.port}"}, ours).look()
        assert found.state == "unreachable"


def files_of(folder: CertificateFolder) -> TlsFiles:
    return TlsFiles(str(folder.cert), str(folder.key), str(folder.ca))


async def test_a_name_that_is_not_known_is_one_replica_that_is_not_there() -> None:
    [found] = await PeerReplicas({"config_svc": "dns:///no-such-host.invalid:50052"}).look()
    assert (found.address, found.state) == ("no-such-host.invalid:50052", "unreachable")


async def test_an_address_is_listed_once_and_in_one_family() -> None:
    assert await addresses_of("127.0.0.1", 80) == ["127.0.0.1:80"]
    assert await addresses_of("::1", 80) == ["[::1]:80"]
