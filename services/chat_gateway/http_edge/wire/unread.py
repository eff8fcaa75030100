"""A bound on the unread response bytes of all connections together."""

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Final, NamedTuple, TypeVar

MAX_UNREAD_BYTES: Final = 64 * 1024 * 1024
UNREAD_SECONDS: Final = 5.0
"""How long a client that reads nothing has while more than that is unread."""

C = TypeVar("C")


class Stalled(NamedTuple):
    """How a connection waits for its client: since when, since when that has read nothing, how many bytes are left."""

    since: float
    progress: float
    waiting: int


def making_room(stalled: Iterable[tuple[Stalled, C]], max_bytes: int, now: float) -> Iterator[C]:
    """Yields the connections that have to end, those whose clients have read nothing for the longest first."""
    unread = [(one.progress, one.waiting, connection) for one, connection in stalled]
    total = sum(waiting for _, waiting, _ in unread)
    for progress, waiting, connection in sorted(unread, key=itemgetter(0)):
        if total <= max_bytes or now - progress < UNREAD_SECONDS:
            return
        total -= waiting
        yield connection
