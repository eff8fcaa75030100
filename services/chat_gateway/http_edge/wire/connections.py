"""Bounds on connections, in total and per source, with room kept for health checks."""

import resource
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import structlog

from servicekit.sites import site_of

RESERVED = 16
"""Connections beyond the bounds that are served health checks, and nothing else."""

_OWN_FILES = 128
"""Files that the process opens for itself: listeners, channels, certificates, modules."""

log = structlog.get_logger("chat_gateway.http")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Connections at a time, in all and from one source: an IPv4 address, or the first 64 bits of an IPv6 address."""

    total: int = 4096
    per_source: int = 2048

    def within_open_files(self) -> "ConnectionLimits":
        """Returns the limits, scaled down where the process may not open files enough: two a connection, and its own.

        The other file is for what a request needs, such as a connection to a provider.
        """
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = max(RESERVED, (files - _OWN_FILES) // 2)
        if files == resource.RLIM_INFINITY or self.total <= allowed:
            return self
        log.warning("connections_limited_by_open_files", open_files=files, connections=allowed, wanted=self.total)
        return ConnectionLimits(allowed, max(1, self.per_source * allowed // self.total))


class Admission(Enum):
    """What a new connection may do."""

    ANYTHING = 1
    HEALTH = 2
    NOTHING = 3


class Connection(Protocol):
    """What is counted."""

    def evict(self) -> None:
        """Closes the connection, which serves no request. It was already removed from the count."""


class Source:
    """The connections of one source: how many, and those that serve no request, the longest idle one first."""

    __slots__ = ("count", "idle", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.count = 0
        self.idle: dict[Connection, None] = {}


class Connections:
    """Counts connections. At a bound, a new one takes the place of one that serves no request.

    That is the source's own that was idle for longest or, where it has none, one of the source that has the most. Where
    everything is in use, the new one is admitted for health checks, and takes the place of another one that was.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._sources: dict[str, Source] = {}
        self._count = 0
        self._reserve = Source("")
        self.refused = 0
        """How many connections were closed, or not admitted, because of the bounds."""

    def __len__(self) -> int:
        return self._count + self._reserve.count

    def enter(self, connection: Connection, address: str) -> tuple[Admission, Source]:
        """Counts a connection from `address`, as one that serves no request."""
        key = site_of(address)
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = Source(key)
        admitted = source.count < self._limits.per_source or self._evict(source)
        if admitted and self._count >= self._limits.total:
            admitted = self._evict(source) or self._evict_of(self._largest_idle())
        if admitted:
            source.count += 1
            self._count += 1
            source.idle[connection] = None
            return Admission.ANYTHING, source
        self._forget_empty(source)
        self.refused += 1
        if self._reserve.count >= RESERVED and not self._evict(self._reserve):
            return Admission.NOTHING, self._reserve
        self._reserve.count += 1
        self._reserve.idle[connection] = None
        return Admission.HEALTH, self._reserve

    def leave(self, connection: Connection, source: Source) -> None:
        """Takes a connection, which was admitted for something, off the count."""
        self._remove(connection, source)
        self._forget_empty(source)

    def _remove(self, connection: Connection, source: Source) -> None:
        source.idle.pop(connection, None)
        source.count -= 1
        if source is not self._reserve:
            self._count -= 1

    def _evict(self, source: Source) -> bool:
        """Closes the source's connection that was idle for longest; returns whether there was one."""
        victim = next(iter(source.idle), None)
        if victim is None:
            return False
        self._remove(victim, source)
        self.refused += 1
        victim.evict()
        return True

    def _evict_of(self, source: Source) -> bool:
        evicted = self._evict(source)
        self._forget_empty(source)
        return evicted

    def _largest_idle(self) -> Source:
        return max(self._sources.values(), key=lambda source: len(source.idle))

    def _forget_empty(self, source: Source) -> None:
        if source.count == 0 and source is not self._reserve:
            self._sources.pop(source.key, None)
