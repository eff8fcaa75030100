"""The `Link` to a Redis cluster: a shared connection to every primary, and commands sent to where their slot is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Self

import hiredis

from session_svc.redis_client.link import Command, NotSent, RedisUnavailable, Reply
from session_svc.redis_client.server import RedisLink
from session_svc.redis_client.slots import SlotMap, slot_of

MAX_HOPS = 5
RETRY_SECONDS = 1.0
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.2

# What a node answers that did not run a command, but that it or another will run soon: the slot is at another, or on
# its way there; the cluster has no primary for a slot; the node loads its data.
_MOVES = ("MOVED", "ASK")
_WAITS = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN")
# A script came upon a key that had left with its slot, when it had perhaps written already.
_TORN = "attempted to access a non local key"

_WITHOUT_KEY = ("WAIT", "PING")


class ClusterLink:
    """Sends commands to the nodes that serve them, and follows them when they move.

    A command that a node refused is sent again, with all of its stage and slot that stand behind it, so that their
    order holds: at most `MAX_HOPS` times where another node is named, for `RETRY_SECONDS` where none is. A connection
    that breaks fails the calls that wait on it, for the commands may have run.
    """

    def __init__(self, slots: SlotMap, *, name: str = "session_svc") -> None:
        self._slots = slots
        self._name = name
        self._links: dict[str, RedisLink] = {}
        self._retired: set[asyncio.Task[None]] = set()
        self._generations = 0

    @property
    def generation(self) -> int:
        return self._generations + sum([link.generation for link in self._links.values()])

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Keeps a connection to every primary while open. Entering does not wait for the cluster."""
        self._slots.listeners.append(self._follow)
        self._follow()
        try:
            yield self
        finally:
            self._slots.listeners.remove(self._follow)
            for node in [*self._links]:
                self._retire(node)
            await asyncio.gather(*self._retired, return_exceptions=True)

    async def send(self, *commands: Command) -> list[Reply]:
        """See `Link.send_in_order`: all in one stage."""
        replies: list[Reply] = [None] * len(commands)
        parts = _by_slot(commands)
        loop = asyncio.get_running_loop()
        give_up, hops, pause = loop.time() + RETRY_SECONDS, 0, FIRST_PAUSE
        while True:
            await self._send_parts(parts, commands, replies)
            parts = [part for part in parts if self._has_left(part, replies)]
            if not parts:
                return replies
            hops += 1
            if any(part.waits for part in parts):
                self._slots.doubt()
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            elif hops > MAX_HOPS:
                raise RedisUnavailable
            if loop.time() > give_up:
                raise RedisUnavailable

    async def send_in_order(self, *stages: Sequence[Command]) -> list[Reply]:
        """See `Link`. A round trip for each stage, to all of its nodes at once."""
        replies: list[Reply] = []
        for number, stage in enumerate(stages):
            try:
                replies += await self.send(*stage) if stage else []
            except RedisUnavailable as error:
                error.stage = number
                raise
        return replies

    async def ping(self) -> None:
        """See `Link`. The first answer counts: sessions on the primaries that answer go on while others are away."""
        await self._slots.owner(0)
        asked = [asyncio.create_task(self._answers(node)) for node in self._slots.primaries]
        try:
            for answer in asyncio.as_completed(asked):
                if await answer:
                    return
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise RedisUnavailable

    def demoted(self) -> None:
        self._slots.doubt()

    async def _answers(self, node: str) -> bool:
        try:
            await self._link(node).ping()
        except RedisUnavailable:
            self._slots.doubt()
            return False
        return True

    async def _send_parts(self, parts: "Sequence[_Part]", commands: Sequence[Command], replies: list[Reply]) -> None:
        by_node: dict[str, list[_Part]] = {}
        for part in parts:
            node = part.node or await self._slots.owner(part.slot)
            if node is None:
                self._slots.doubt()
                part.waits = True
            else:
                by_node.setdefault(node, []).append(part)
        sends = [self._send_to(node, its, commands, replies) for node, its in by_node.items()]
        if len(sends) == 1:
            await sends[0]
            return
        # All of them are waited for, also when one fails: nothing is under way when this returns.
        for outcome in await asyncio.gather(*sends, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _send_to(
        self, node: str, parts: "Sequence[_Part]", commands: Sequence[Command], replies: list[Reply]
    ) -> None:
        """Sends parts to one node and files the replies, none where it is known that nothing was sent."""
        pipeline: list[Command] = []
        for part in parts:
            for index in part.left:
                if part.asking:
                    pipeline.append(("ASKING",))
                pipeline.append(commands[index])
        try:
            answers = iter(await self._link(node).send(*pipeline))
        except NotSent:
            await self._slots.refreshed()
            for part in parts:
                if part.node is not None or await self._slots.owner(part.slot) == node:
                    raise
            return
        except RedisUnavailable:
            self._slots.doubt()
            raise
        for part in parts:
            for index in part.left:
                if part.asking:
                    next(answers)
                replies[index] = next(answers)
            part.sent = True

    def _has_left(self, part: "_Part", replies: Sequence[Reply]) -> bool:
        """Tells whether some of a part is still to be sent, and leaves it prepared for that."""
        sent, part.sent, part.asking, part.node = part.sent, False, False, None
        if not sent:
            return True
        part.waits = False
        for position, index in enumerate(part.left):
            if isinstance(replies[index], hiredis.ReplyError) and self._is_passing(part, str(replies[index])):
                part.left = part.left[position:]
                return True
        return False

    def _is_passing(self, part: "_Part", refusal: str) -> bool:
        kind, _, rest = refusal.partition(" ")
        if kind in _MOVES:
            node = rest.rpartition(" ")[2]
            if node.startswith((":", "?")):
                self._slots.doubt()
                part.waits = True
                return True
            part.node, part.asking = node, kind == "ASK"
            if kind == "MOVED":
                self._slots.learn(part.slot, node)
            return True
        part.waits = kind in _WAITS
        if _TORN in refusal:
            self._slots.doubt()
            raise RedisUnavailable
        return part.waits

    def _link(self, node: str) -> RedisLink:
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = RedisLink(self._slots.address(node), name=self._name)
            link.start()
        return link

    def _follow(self) -> None:
        """Connects to primaries that are new, and leaves nodes that are none (any more) once nobody waits for them."""
        for node in self._slots.primaries:
            self._link(node)
        for node in [node for node in self._links if node not in self._slots.primaries]:
            if not self._links[node].busy:
                self._retire(node)

    def _retire(self, node: str) -> None:
        link = self._links.pop(node)
        self._generations += link.generation + 1
        task = asyncio.create_task(link.close(), name="leave a redis node")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


class _Part:
    """Those of a stage's commands that are in one slot, by their places in it, as far as they are `left` to be sent."""

    __slots__ = ("asking", "left", "node", "sent", "slot", "waits")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.left: list[int] = []
        self.node: str | None = None
        self.asking = False
        self.sent = False
        self.waits = False


def _by_slot(commands: Sequence[Command]) -> list[_Part]:
    parts: dict[int, _Part] = {}
    slot = 0
    for index, command in enumerate(commands):
        key = _key_of(command)
        if key is not None:
            slot = slot_of(key)
        part = parts.get(slot)
        if part is None:
            part = parts[slot] = _Part(slot)
        part.left.append(index)
    return list(parts.values())


def _key_of(command: Command) -> bytes | str | None:
    if command[0] in _WITHOUT_KEY:
        return None
    key = command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]
    return str(key) if isinstance(key, int) else key
