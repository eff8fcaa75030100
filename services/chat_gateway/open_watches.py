"""Bounds the open watches of turns, each of which holds a call to session_svc and a page of its journal."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chat_gateway.model.watches import WatchBounds
from contract.errors import TooManyWatches


class OpenWatches:
    """Counts open watches."""

    def __init__(self, bounds: WatchBounds) -> None:
        self._bounds = bounds
        self._open: Counter[tuple[str, ...]] = Counter()

    @contextmanager
    def one_more(self, project: str, session_id: str) -> Iterator[None]:
        """Counts a watch while open. Raises `TooManyWatches` with the limit that was reached."""
        bounds = self._bounds
        held = (
            ("session", bounds.per_session, (project, session_id)),
            ("project", bounds.per_project, (project,)),
            ("gateway", bounds.in_all, ()),
        )
        for scope, limit, key in held:
            if self._open[key] >= limit:
                raise TooManyWatches(scope, limit)
        for _, _, key in held:
            self._open[key] += 1
        try:
            yield
        finally:
            for _, _, key in held:
                self._open[key] -= 1
                if not self._open[key]:
                    del self._open[key]
