"""`parley up` whose supervisor is killed."""

import os
import signal

from tests.servers.parley_up import Parley, descendants
from tests.servers.processes import wait_until_ended


def test_no_child_outlives_a_supervisor_that_was_killed(parley: Parley) -> None:
    parley.succeed("up", "--detach")
    pids = parley.pids()
    children = descendants(pids["supervisor"])
    os.kill(pids["supervisor"], signal.SIGKILL)
    wait_until_ended(children)
    parley.succeed("up", "--detach")
    assert set(parley.pids().values()).isdisjoint(pids.values())
