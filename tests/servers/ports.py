"""Ports for servers that tests start, kill and start again."""

import os
import random

from parley_cli.processes.ports import is_free

FIRST, LAST = 12_000, 32_000
"""Below what Linux gives connections for their own end, so that a port stays free while its server is down."""
SHARES = 4

_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on, never the same one twice, and none of another worker's share."""
    size = (LAST - FIRST) // SHARES
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = FIRST + int(worker) % SHARES * size
    while (port := random.randrange(first, first + size)) in _given or not is_free(port):
        pass
    _given.add(port)
    return port
