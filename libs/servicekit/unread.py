"""A bound on what clients leave unread, of all of them together."""

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Final, NamedTuple, TypeVar

MAX_UNREAD_BYTES: Final = 64 * 1024 * 1024
UNREAD_SECONDS: Final = 5.0
"""How long a client that reads nothing has while more than that is unread."""
STREAM_BYTES: Final = 512 * 1024
"""What a stream counts as that waits for its reader: the page of a journal and the answer that it is made from are not
in any buffer."""

C = TypeVar("C")


class Stalled(NamedTuple):
    """How a connection or call waits for its client: since when, since when that has read nothing, and how many bytes
    are left.
    """

    since: float
    progress: float
    waiting: int


def making_room(stalled: Iterable[tuple[Stalled, C]], max_bytes: int, now: float) -> Iterator[C]:
    """Yields those that have to end, those whose clients have read nothing for the longest first."""
    unread = [(one.progress, one.waiting, owner) for one, owner in stalled]
    total = sum(waiting for _, waiting, _ in unread)
    for progress, waiting, owner in sorted(unread, key=itemgetter(0)):
        if total <= max_bytes or now - progress < UNREAD_SECONDS:
            return
        total -= waiting
        yield owner
