"""`parley up --detach`: the commands on what it leaves running, and what is left when its supervisor is killed."""

import json
import os
import signal
import urllib.request

from tests.servers.mock_model import MockModel
from tests.servers.parley_up import Parley, answer_in, descendants
from tests.servers.processes import wait_until_ended


def test_detached_system_is_used_killed_started_again_and_stopped(parley: Parley, mock_model: MockModel) -> None:
    out = parley.succeed("up", "--detach", "--gateways", "2")
    assert answer_in(out.splitlines()) == "echo:2:Say hello to me in one short sentence."
    assert f"console  http://127.0.0.1:{parley.http_port}/console" in out.splitlines()
    with urllib.request.urlopen(f"http://127.0.0.1:{parley.http_port}/console", timeout=60) as page:
        assert "<title>Parley</title>" in page.read().decode()
    assert [request["model"] for request in mock_model.requests] == ["mock-model"]
    pids = parley.pids()
    assert list(pids) == ["supervisor", "postgres", "redis", "config_svc", "session_svc", "gateway-1", "gateway-2"]

    assert f"in use by another `parley up` (pid {pids['supervisor']})" in parley.refusal("up")

    assert "hello" in parley.succeed("agents", "list")
    agent = parley.folder / "agent.yaml"
    agent.write_text(
        "{id: bob, name: Bob, template_id: assistant, instructions: Be Bob, model: {provider: mock, name: m}}"
    )
    assert parley.succeed("agents", "create", "-f", "agent.yaml") == "created bob (revision 1)\n"
    assert "already" in parley.refusal("agents", "create", "-f", "agent.yaml")
    agent.write_text("name: Robert\n")
    assert parley.succeed("agents", "update", "bob", "-f", "agent.yaml") == "updated bob (revision 2)\n"
    assert json.loads(parley.succeed("agents", "get", "bob", "--json"))["name"] == "Robert"
    assert parley.succeed("chat", "bob", "--session", "s", "--message", "one") == "echo:2:one\n"
    other = f"http://127.0.0.1:{parley.http_port + 1}"
    assert parley.succeed("chat", "bob", "--session", "s", "--message", "two", PARLEY_URL=other) == "echo:4:two\n"
    assert "s " in parley.succeed("sessions", "list", "--agent", "bob")
    assert "echo:4:two" in parley.succeed("sessions", "show", "s")
    parley.succeed("sessions", "delete", "s")
    assert "session_not_found" in parley.refusal("sessions", "show", "s")
    assert "assistant" in parley.succeed("templates", "list")
    parley.succeed("agents", "delete", "bob")
    assert "agent_not_found" in parley.refusal("chat", "bob", "--message", "three")

    children = descendants(pids["supervisor"])
    os.kill(pids["supervisor"], signal.SIGKILL)
    wait_until_ended(children)  # none outlives it
    parley.succeed("up", "--detach")
    killed, pids = pids, parley.pids()
    assert set(pids.values()).isdisjoint(killed.values())

    assert parley.succeed("down") == "stopped the system in .parley\n"
    wait_until_ended(pids.values())
    assert parley.succeed("down") == "no system runs in .parley\n"
    assert "no system runs" in parley.refusal("status")
