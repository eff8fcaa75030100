"""Ports for servers that tests start, kill and start again."""

import os
import random

from parley_cli.processes.ports import is_free

FIRST, LAST = 12_000, 32_000
"""Below what Linux gives connections for their own end, so that a port stays free while its server is down."""
SHARES = 8

_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on, never the same one twice, and none of another worker's share."""
    return free_ports(1)


def free_ports(number: int) -> int:
    """Return the first of so many ports in a row, each as `free_port` has it."""
    size = (LAST - FIRST) // SHARES
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    begin = FIRST + int(worker) % SHARES * size
    while True:
        first = random.randrange(begin, begin + size - number + 1)
        ports = range(first, first + number)
        if _given.isdisjoint(ports) and all(is_free(port) for port in ports):
            _given.update(ports)
            return first
