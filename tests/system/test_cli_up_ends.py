"""`parley up` when something ends: a part, the start, the supervisor itself."""

import os
import signal

import httpx

from tests.servers.parley_up import Foreground, Parley, descendants
from tests.servers.processes import wait_until_ended


def test_parts_that_die_are_started_again(parley: Parley) -> None:
    up = Foreground(parley)
    up.wait_for("running")
    pids = parley.pids()
    turn = {"model": "hello", "session_id": "kept", "messages": [{"role": "user", "content": "one"}]}
    url = f"{parley.url}/v1/chat/completions"
    httpx.post(url, json=turn, timeout=60, trust_env=False).raise_for_status()
    for name in ("redis", "gateway-1"):
        os.kill(pids[name], signal.SIGKILL)
    for name in ("redis", "gateway-1"):
        up.wait_for(f"{name} was killed by signal 9")
        up.wait_for(f"{name} is ready again")
    now = parley.pids()
    assert {name for name in pids if now[name] != pids[name]} == {"redis", "gateway-1"}
    assert httpx.get(f"{parley.url}/livez", timeout=10, trust_env=False).status_code == 200
    up.process.send_signal(signal.SIGINT)
    code, lines = up.end()
    assert code == 0, "\n".join(lines)
    wait_until_ended([*pids.values(), *now.values()])


def test_without_restarts_a_dead_child_is_named_and_ends_everything(parley: Parley) -> None:
    up = Foreground(parley, "--no-restart")
    up.wait_for("running")
    pids = parley.pids()
    os.kill(pids["redis"], signal.SIGKILL)
    code, lines = up.end()
    assert code == 1
    log = parley.folder / ".parley" / "log" / "redis.log"
    assert lines[-1].startswith(f"parley: redis was killed by signal 9 (log {log}): ")
    wait_until_ended(pids.values())


def test_an_interrupted_start_leaves_nothing_behind(parley: Parley) -> None:
    up = Foreground(parley)
    up.wait_for("redis ready")
    children = descendants(up.process.pid)
    up.process.send_signal(signal.SIGINT)
    code, lines = up.end()
    assert code == 0, "\n".join(lines)
    assert lines[-1].startswith("stopped ")
    wait_until_ended(children)
