"""Which node of a cluster serves which slot, as far as is known here, and kept so."""

import asyncio
import binascii
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

import hiredis
import structlog

from servicekit.supervision import supervise
from session_svc.redis_client.address import RedisAddress
from session_svc.redis_client.connection import CONNECT_SECONDS, ask
from session_svc.redis_client.link import RedisFault, RedisUnavailable, Reply
from session_svc.redis_client.url import ClusterAddress, at

SLOTS = 16384
ASK_SECONDS = 0.5
MAX_ASKED = 8
SHORTEST_PAUSE = 0.1
REFRESH_SECONDS = 10.0
DOUBT_SECONDS = 0.6

log = structlog.get_logger("session_svc.redis")


def slot_of(key: bytes | str) -> int:
    """Returns the slot of a key: of what stands between its first `{` and the `}` after it, if that is anything."""
    name = key.encode() if isinstance(key, str) else key
    begin = name.find(b"{")
    if begin >= 0:
        end = name.find(b"}", begin + 1)
        if end > begin + 1:
            name = name[begin + 1 : end]
    return binascii.crc_hqx(name, 0) % SLOTS


class SlotMap:
    """Nodes, named `host:port`, by slot. Asked of any node at the start, on every doubt, and every ten seconds.

    What it says may be out of date at any time; a node that is asked for what it does not serve says so.
    """

    def __init__(self, address: ClusterAddress) -> None:
        self._like = address.seeds[0]
        self._seeds = {name_of(seed.host, seed.port): seed for seed in address.seeds}
        self._nodes: list[str] = []
        self._owners: list[str | None] = []
        self.primaries: frozenset[str] = frozenset()
        self._known = asyncio.Event()
        self._doubted = asyncio.Event()
        self._refresh: asyncio.Future[None] | None = None
        self.listeners: list[Callable[[], None]] = []
        """Called each time that the cluster was asked."""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Keeps the map fresh while open. Entering does not wait for the cluster."""
        self._refresh = asyncio.get_running_loop().create_future()
        keeper = asyncio.create_task(supervise("redis slots", self._keep_fresh), name="redis slots")
        try:
            yield self
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def owner(self, slot: int) -> str | None:
        """Returns the node that serves a slot; None where none is known, at the start after `CONNECT_SECONDS`."""
        if not self._owners:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._known.wait()
        return self._owners[slot] if self._owners else None

    def address(self, node: str) -> RedisAddress:
        """Returns how to connect to a node."""
        host, _, port = node.rpartition(":")
        return self._seeds.get(node) or at(self._like, host, int(port))

    def doubt(self) -> None:
        """Has the cluster asked again, soon; also when that was done a moment ago."""
        self._doubted.set()

    def learn(self, slot: int, node: str) -> None:
        """Takes a node's word for it that another serves a slot, until the cluster is asked, which is soon."""
        if self._owners:
            self._owners[slot] = node
        self.doubt()

    async def refreshed(self, timeout: float = DOUBT_SECONDS) -> None:
        """Returns when the cluster was asked once more from now on, or after `timeout` seconds."""
        self.doubt()
        if self._refresh is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._refresh), timeout)

    async def find(self) -> RedisAddress:
        """Returns any primary: see `Place`. A message that is published in a cluster reaches all of its nodes."""
        await self.owner(0)
        return self.address(random.choice([*(self.primaries or self._seeds)]))

    async def _keep_fresh(self) -> None:
        while True:
            self._doubted.clear()
            asked, self._refresh = self._refresh, asyncio.get_running_loop().create_future()
            if not await self._ask():
                self._doubted.set()
            if asked is not None:
                asked.set_result(None)
            await asyncio.sleep(SHORTEST_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._doubted.wait()

    async def _ask(self) -> bool:
        """Asks node after node until one answers; returns whether one did."""
        known = random.sample(self._nodes, min(len(self._nodes), MAX_ASKED))
        for node in [*known, *self._seeds]:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    [answer] = await ask(self.address(node), "session_svc_slots", ("CLUSTER", "SLOTS"))
            except (OSError, TimeoutError, RedisUnavailable, RedisFault):
                continue
            if isinstance(answer, hiredis.ReplyError):
                log.error("a node of the redis cluster does not tell its slots", error=str(answer))
            elif answer:
                self._take(answer, node)
                return True
        log.warning("no node of the redis cluster answers")
        return False

    def _take(self, ranges: Sequence[Reply], asked: str) -> None:
        owners: list[str | None] = [None] * SLOTS
        nodes: dict[str, None] = {}
        for first, last, *serving in ranges:
            names = [name for node in serving if (name := _node_of(node, asked)) is not None]
            if names:
                owners[first : last + 1] = [names[0]] * (last - first + 1)
                nodes.update(dict.fromkeys(names))
        self._owners, self._nodes = owners, list(nodes)
        self._known.set()
        primaries = frozenset(owner for owner in owners if owner is not None)
        if primaries != self.primaries:
            self.primaries = primaries
            log.info("redis cluster", primaries=sorted(primaries))
        for listener in self.listeners:
            listener()


def name_of(host: str, port: int) -> str:
    """Returns the name of a node."""
    return f"{host}:{port}"


def _node_of(node: Sequence[Reply], asked: str) -> str | None:
    """Returns the name of a node in an answer; one without a host is at the host that was asked."""
    host = (node[0] or b"").decode() or asked.rpartition(":")[0]
    return None if host == "?" else name_of(host, node[1])
