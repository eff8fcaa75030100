"""Every replica of config_svc and session_svc, asked for its health by itself."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chat_gateway.clients.addresses import addresses_of
from servicekit.channels import open_channel, resolvable
from servicekit.tls import Certificates

TIMEOUT_SECONDS: Final = 2.0
MAX_REPLICAS: Final = 64

PeerState = Literal["serving", "not_serving", "unreachable"]


@dataclass(frozen=True, slots=True)
class PeerReplica:
    """One replica of a peer service: where it is, what it says, and the seconds that it took to say so."""

    service: str
    address: str
    state: PeerState
    seconds: float | None = None


class PeerReplicas:
    """Asks the replicas behind this gateway's targets; connections are made for each look, and none is kept."""

    def __init__(self, targets: Mapping[str, str], tls: Certificates | None = None) -> None:
        self._targets = targets
        self._tls = tls

    async def look(self) -> list[PeerReplica]:
        """Returns all replicas within a few seconds, at most 64 of each service, in order of service and address."""
        found = await asyncio.gather(*(self._replicas(name, target) for name, target in self._targets.items()))
        return [replica for some in found for replica in some]

    async def _replicas(self, service: str, target: str) -> list[PeerReplica]:
        kind, _, rest = resolvable(target).partition(":")
        if kind in ("ipv4", "ipv6"):
            return await self._ask(service, sorted(rest.split(",")))
        if kind != "dns":  # only gRPC knows what is behind it
            return await self._ask(service, [target])
        name = rest.rpartition("/")[2]
        host, _, port = name.rpartition(":")
        return await self._ask(service, await addresses_of(host.strip("[]"), int(port)) or [name], host)

    async def _ask(self, service: str, addresses: list[str], name: str = "") -> list[PeerReplica]:
        asked = (self._health(service, address, name) for address in addresses[:MAX_REPLICAS])
        return list(await asyncio.gather(*asked))

    async def _health(self, service: str, address: str, name: str) -> PeerReplica:
        # The certificate is for the name, and the call is for one of its addresses.
        options = [("grpc.ssl_target_name_override", name)] if name else []
        start = time.perf_counter()
        async with open_channel(address, self._tls, options=options) as channel:
            ask = health_pb2_grpc.HealthStub(channel).Check
            try:
                answer = await ask(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError:
                return PeerReplica(service, address, "unreachable")
        serving = answer.status == health_pb2.HealthCheckResponse.SERVING
        return PeerReplica(service, address, "serving" if serving else "not_serving", time.perf_counter() - start)
