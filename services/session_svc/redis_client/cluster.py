"""The `Link` to a Redis cluster: a shared connection to every primary, and commands sent to where their slot is."""

import asyncio
import functools
import random
from collections.abc import Callable, Sequence
from typing import Self

import hiredis
import structlog
from redis.asyncio.cluster import ClusterNode, NodesManager
from redis.asyncio.connection import AbstractConnection
from redis.cluster import PRIMARY
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisClusterException, RedisError, TryAgainError

from servicekit.supervision import cancel_and_wait, supervise
from session_svc.redis_client.link import Command, NotSent, RedisUnavailable, Reply
from session_svc.redis_client.server import RedisLink
from session_svc.redis_client.url import Dial, Options, connect

MIN_REFRESH_SECONDS = 0.1
REFRESH_SECONDS = 0.6
RETRY_PAUSES = (0.02, 0.04, 0.08, 0.16, 0.2, 0.2, 0.2, 0.2)
"""Seconds between attempts at what no node ran; where one names another, that is asked at once."""

# What a node answers that did not run a command, but that it or another will run soon: the slot is at another, or on
# its way there; the cluster has no primary for a slot; the node loads its data.
_REDIRECTS = {"MOVED": MovedError, "ASK": AskError}
_RETRYABLE = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN")
# A script came upon a key that had left with its slot, when it had perhaps written already.
_TORN = "attempted to access a non local key"
_WITHOUT_KEY = ("WAIT", "PING")

log = structlog.get_logger("session_svc.redis")


class Topology:
    """Which node serves which slot: asked of any node at the start and when invalidated, ten times a second at most.

    It may be out of date at any time; a node that is asked for what it does not serve says so. `listeners` are called
    each time that the cluster was asked.
    """

    def __init__(self, seeds: Sequence[Options]) -> None:
        options = {name: value for name, value in seeds[0].items() if name not in ("host", "port")}
        self._nodes = NodesManager([ClusterNode(**seed) for seed in seeds], False, options)
        self._stale = asyncio.Event()
        self.listeners: list[Callable[[], None]] = []

    def start(self) -> Self:
        """Begins to ask, without waiting for the answer."""
        self._asked = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(supervise("redis topology", self._keep_fresh), name="redis topology")
        return self

    async def aclose(self) -> None:
        await cancel_and_wait(self._keeper)
        # Nodes that have left the cluster are closed by tasks of redis-py's.
        left = tuple(self._nodes._background_tasks)
        await asyncio.gather(self._nodes.aclose("startup_nodes"), *left, return_exceptions=True)

    @property
    def primaries(self) -> dict[str, ClusterNode]:
        return {node.name: node for node in self._nodes.get_nodes_by_server_type(PRIMARY)}

    async def owner(self, slot: int) -> ClusterNode | None:
        """Returns the node that serves a slot; None where none is known."""
        if not self._nodes.slots_cache:
            await self.refresh()
        serving = self._nodes.slots_cache.get(slot)
        return serving[0] if serving else None

    async def follow(self, redirect: AskError) -> ClusterNode | None:
        """Returns the node that another one names for a slot; if the slot has moved there for good, that is kept."""
        if not redirect.host:
            return None
        if isinstance(redirect, MovedError) and redirect.slot_id in self._nodes.slots_cache:
            await self._nodes.move_slot(redirect)
            self.invalidate()
        # A node that is to take over its first slot is not known yet.
        known = self._nodes.get_node(redirect.host, redirect.port)
        return known or ClusterNode(redirect.host, redirect.port, **self._nodes.connection_kwargs)

    def invalidate(self) -> None:
        """Has the cluster asked again soon, also when that was done a moment ago."""
        self._stale.set()

    async def refresh(self) -> None:
        """Returns when the cluster was asked once more from now on, or after `REFRESH_SECONDS`."""
        self.invalidate()
        await asyncio.wait([self._asked], timeout=REFRESH_SECONDS)

    async def dial(self) -> AbstractConnection:
        """Connects to any primary: what is published in a cluster reaches all of its nodes."""
        await self.owner(0)
        return await _dial(random.choice([*self.primaries.values()] or [*self._nodes.startup_nodes.values()]))()

    async def _keep_fresh(self) -> None:
        while True:
            self._stale.clear()
            asked, self._asked = self._asked, asyncio.get_running_loop().create_future()
            before = self.primaries.keys()
            try:
                await self._nodes.initialize()
            except (RedisError, RedisClusterException, OSError, IndexError) as error:
                log.warning("redis_cluster_unreachable", error=str(error))
                self.invalidate()
            if self.primaries.keys() != before:
                log.info("redis_cluster_changed", primaries=sorted(self.primaries))
            for listener in self.listeners:
                listener()
            asked.set_result(None)
            await asyncio.sleep(MIN_REFRESH_SECONDS)
            await self._stale.wait()


class ClusterLink:
    """Sends commands to the nodes that serve them, and follows them when they move.

    A command that a node refused is sent again, with all of its stage and slot that stand behind it, so that their
    order holds. A connection that breaks fails the calls that wait on it, for the commands may have run.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._links: dict[str, RedisLink] = {}
        self._generations = 0
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def generation(self) -> int:
        return self._generations + sum([link.generation for link in self._links.values()])

    def start(self) -> Self:
        """Begins to keep a connection to every primary up, without waiting for the cluster."""
        self._topology.listeners.append(self._follow)
        return self

    async def aclose(self) -> None:
        self._topology.listeners.remove(self._follow)
        await asyncio.gather(*(link.aclose() for link in self._links.values()), *self._closing)

    async def send_in_order(self, *stages: Sequence[Command]) -> list[Reply]:
        # A round trip for each stage, to all of its nodes at once.
        replies: list[Reply] = []
        for number, stage in enumerate(stages):
            try:
                replies += await self.send(*stage)
            except RedisUnavailable as error:
                error.stage = number
                self._topology.invalidate()
                raise
        return replies

    async def send(self, *commands: Command) -> list[Reply]:
        """Returns the replies to the commands: see `Link.send_in_order`, in one stage."""
        places: dict[int, list[int]] = {}
        slot = 0
        for place, command in enumerate(commands):
            if command[0] not in _WITHOUT_KEY:
                key = command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]
                slot = key_slot(key if isinstance(key, bytes) else str(key).encode())
            places.setdefault(slot, []).append(place)
        if len(places) == 1:
            return await self._send_to(slot, commands)
        # All of them are waited for, also when one fails: nothing is under way when this returns.
        parts = [self._send_to(slot, [commands[place] for place in part]) for slot, part in places.items()]
        replies: dict[int, Reply] = {}
        for part, outcome in zip(places.values(), await asyncio.gather(*parts, return_exceptions=True), strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            replies.update(zip(part, outcome, strict=True))
        return [replies[place] for place in range(len(commands))]

    async def ping(self) -> None:
        # The first answer counts: sessions on the primaries that answer go on while others do not.
        await self._topology.owner(0)
        pings = [asyncio.create_task(self._link(node).ping()) for node in self._topology.primaries.values()]
        why = ""
        try:
            for answer in asyncio.as_completed(pings):
                try:
                    return await answer
                except RedisUnavailable as error:
                    why = error.why or why
                self._topology.invalidate()
        finally:
            await cancel_and_wait(*pings)
        raise RedisUnavailable(why)

    def demoted(self) -> None:
        self._topology.invalidate()

    async def _send_to(self, slot: int, commands: Sequence[Command]) -> list[Reply]:
        """Returns the replies to commands on one slot, which run in order, wherever the slot goes meanwhile."""
        replies: list[Reply] = []
        named: ClusterNode | None = None
        asking = False
        for pause in RETRY_PAUSES:
            node = named or await self._topology.owner(slot)
            refusal: RedisError | None = None
            if node is not None:
                try:
                    refusal = _take(await self._send_part(node, commands[len(replies) :], asking), replies)
                except NotSent:
                    await self._topology.refresh()
                    if named or await self._topology.owner(slot) == node:
                        raise
                    continue
                if refusal is None:
                    return replies
            named, asking = None, False
            if isinstance(refusal, AskError):
                named, asking = await self._topology.follow(refusal), not isinstance(refusal, MovedError)
            if named is None:
                self._topology.invalidate()
                await asyncio.sleep(pause)
        raise RedisUnavailable

    async def _send_part(self, node: ClusterNode, commands: Sequence[Command], asking: bool) -> list[Reply]:
        if not asking:
            return await self._link(node).send(*commands)
        pairs = [part for command in commands for part in (("ASKING",), command)]
        return (await self._link(node).send(*pairs))[1::2]

    def _link(self, node: ClusterNode) -> RedisLink:
        if node.name not in self._links:
            self._links[node.name] = RedisLink(_dial(node)).start()
        return self._links[node.name]

    def _follow(self) -> None:
        """Leaves nodes that are not primaries, once no call waits for them."""
        left = self._links.keys() - self._topology.primaries.keys()
        for name in [name for name in left if not self._links[name].busy]:
            link = self._links.pop(name)
            self._generations += link.generation + 1
            closing = asyncio.create_task(link.aclose(), name="close a redis link")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _take(answers: Sequence[Reply], replies: list[Reply]) -> RedisError | None:
    """Adds answers to the replies up to the first by which a node refuses what it, or another, will run soon."""
    for answer in answers:
        if isinstance(answer, hiredis.ReplyError):
            if _TORN in str(answer):
                raise RedisUnavailable
            kind, _, rest = str(answer).partition(" ")
            if kind in _REDIRECTS:
                return _REDIRECTS[kind](rest)
            if kind in _RETRYABLE:
                return TryAgainError(rest)
        replies.append(answer)
    return None


def _dial(node: ClusterNode) -> Dial:
    return functools.partial(connect, node.connection_class, **node.connection_kwargs)
