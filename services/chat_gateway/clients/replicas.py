"""Queries all gateways of the installation for their figures over HTTP, with the caller's credentials."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from chat_gateway.clients.addresses import addresses_of
from chat_gateway.clients.peer_replicas import PeerReplica, PeerReplicas

FIGURES_PATH = "/v1/figures"
TIMEOUT_SECONDS = 3.0
MAX_REPLICAS = 64
MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReplicaAnswer:
    """One replica's figures as JSON, or the problem."""

    address: str
    figures: bytes = b""
    problem: str = ""


class Replicas:
    """Asks the gateways behind the operator's URLs, and the replicas of their peers; a name is all of its addresses."""

    def __init__(self, urls: Sequence[str] = (), peers: PeerReplicas | None = None) -> None:
        self._urls = urls
        self._peers = peers

    @property
    def known(self) -> bool:
        """Whether there are URLs; without them, a gateway knows only itself."""
        return bool(self._urls)

    async def peers(self) -> list[PeerReplica]:
        """Returns the replicas of config_svc and session_svc, as `PeerReplicas.look`."""
        return [] if self._peers is None else await self._peers.look()

    async def figures(self, authorization: str | None) -> list[ReplicaAnswer]:
        """Returns the responses of at most 64 replicas within 3 s, sorted by address."""
        found = await asyncio.gather(*map(_addresses, self._urls))
        addresses = sorted({address for some in found for address in some})[:MAX_REPLICAS]
        headers = {} if authorization is None else {"Authorization": authorization}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            return list(await asyncio.gather(*(_ask(session, address) for address in addresses)))


async def _ask(session: aiohttp.ClientSession, address: str) -> ReplicaAnswer:
    try:
        async with session.get(f"{address}{FIGURES_PATH}", allow_redirects=False) as response:
            if response.status != 200:
                return ReplicaAnswer(address, problem=f"answers {response.status}")
            body = await response.content.read(MAX_BYTES)
            while len(body) < MAX_BYTES and (more := await response.content.read(MAX_BYTES)):
                body += more
            return ReplicaAnswer(address, body)
    except (aiohttp.ClientError, TimeoutError):
        return ReplicaAnswer(address, problem="does not answer")


async def _addresses(url: str) -> list[str]:
    parts = urlsplit(url)
    if parts.scheme == "https":  # a certificate is for the name
        return [f"https://{parts.netloc}"]
    found = await addresses_of(parts.hostname or "", parts.port or 80)
    return [f"http://{address}" for address in found or [parts.netloc]]
