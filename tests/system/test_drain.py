"""A gateway that is stopped: it finishes what it can in time, releases the rest, and exits cleanly."""

import time
from concurrent.futures import ThreadPoolExecutor

from tests.servers.mock_model import Behaviour
from tests.servers.system import StartSystem

DRAIN_SECONDS = 6


def test_a_stop_finishes_short_turns_and_frees_the_sessions_of_long_ones(start_system: StartSystem) -> None:
    system = start_system(gateways=2, gateway_env={"PARLEY_GATEWAY_DRAIN_TIMEOUT": str(DRAIN_SECONDS)})
    system.create_agent("support")
    system.model.script(Behaviour(delay=0.5), Behaviour(hold=True))
    with ThreadPoolExecutor(2) as threads:
        short = threads.submit(system.chat, "support", "short", session_id="short")
        system.model.wait_for_requests(1)
        long = threads.submit(system.chat, "support", "long", session_id="long")
        system.model.wait_for_requests(2)
        began = time.monotonic()
        system.gateways[0].stop()  # asserts exit code 0
        took = time.monotonic() - began
        assert short.result().status_code == 200
        refused = long.result()
    assert took < DRAIN_SECONDS + 30
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    again = system.chat("support", "hi", session_id="long", gateway=1, busy="reject")
    assert again.status_code == 200, "the lease was given back, not left to run out"
    assert again.headers["X-Session-Created"] == "true"
