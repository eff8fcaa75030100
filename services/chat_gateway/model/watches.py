"""Bounds on watches of turns, as values."""

from servicekit.values import value


@value
class WatchBounds:
    """Watches of turns that are open at a time, of one gateway."""

    in_all: int = 1000
    per_project: int = 500
    per_session: int = 32
