"""Waits until enough replicas have a write before it is acknowledged."""

import itertools
from collections.abc import Sequence

from servicekit.errors import Unavailable
from session_svc.redis_client.link import Command, Reply
from session_svc.redis_store.script_runner import RedisScripts


class TooFewReplicas(Unavailable):
    """Written, but too few replicas have it: it may not survive a failover. Repeat it."""

    def __init__(self) -> None:
        super().__init__("redis replicas", retry_after=1.0)


class Durability:
    """Runs what must not be lost; with `replicas` over 0 by `WAIT`, which asks how many replicas have it.

    `WAIT` holds up everything behind it on its connection, so what is waited for has connections of its own, taken by
    turns. It knows only what its own connection wrote: what is run here must write, also when it is a repeat.
    """

    def __init__(self, connections: Sequence[RedisScripts], replicas: int = 0, wait_ms: int = 0) -> None:
        self.replicas = replicas
        self._wait: Command = ("WAIT", replicas, wait_ms)
        self._connections = itertools.cycle(connections)

    async def run(self, command: Command) -> tuple[Reply, bool]:
        """Returns the reply, and whether as many replicas have it as must. Raises `RedisUnavailable`, `RedisFault`."""
        scripts = next(self._connections)
        if not self.replicas:
            [reply] = await scripts.run(command)
            return reply, True
        reply, copies = await scripts.run(command, self._wait)
        return reply, copies >= self.replicas

    async def keep(self, command: Command) -> Reply:
        """Returns the reply to a command that can't be refused.

        Raises `TooFewReplicas`, `RedisUnavailable`, `RedisFault`.
        """
        reply, kept = await self.run(command)
        if not kept:
            raise TooFewReplicas
        return reply
