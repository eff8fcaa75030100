"""The interface to Redis: commands, replies and errors."""

from collections.abc import Sequence
from typing import Any, Protocol

from servicekit.errors import Unavailable

Argument = bytes | str | int
Command = tuple[Argument, ...]
Reply = Any


class RedisUnavailable(Unavailable):
    """Redis can't be reached or does not answer; whether the commands took effect is not known.

    `stage` is which of several stages failed, where those behind it were not sent; None where that is not known.
    """

    stage: int | None = None

    def __init__(self, why: str = "") -> None:
        super().__init__("redis", retry_after=1.0, why=why)


class NotSent(RedisUnavailable):
    """Redis can't be reached; the commands were not sent."""


class RedisFault(Exception):
    """Redis refused a command in a way that callers can't fix; the text is not passed on."""


class Link(Protocol):
    """Sends commands to one or more servers; the routing is internal."""

    @property
    def generation(self) -> int:
        """Counts the connections made: another number means that Redis may have lost what it had not yet saved."""

    async def send_in_order(self, *stages: Sequence[Command]) -> list[Reply]:
        """Returns the replies in order; an error of Redis is a `hiredis.ReplyError` in its place.

        Commands of a stage run after those of the stages before it. Within a stage, commands on one slot (that of their
        first key) run in order, on different slots in any; a command without a key (`WAIT`) goes where the one before
        it goes. Other callers' commands may come between. A command may run twice. Raises `RedisUnavailable`, with the
        stage where the others may do without it.
        """

    async def ping(self) -> None:
        """Returns when Redis answers, a part of it at least. Raises `RedisUnavailable`."""

    def demoted(self) -> None:
        """Reports that a server refused a write because it is no longer the primary, so that the next one is found."""
