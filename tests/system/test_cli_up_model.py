"""`parley up` as a new user has it: embedded servers, real services, the real model."""

import json
import signal
import subprocess
from pathlib import Path

import httpx

from tests.servers.parley_up import Foreground, Parley, answer_in, descendants
from tests.servers.processes import wait_until_ended


def test_first_run_and_second_run_with_the_real_model(tmp_path: Path) -> None:
    # The sample tool server is a Python program of its own, which takes its time to start on a busy machine.
    parley = Parley(tmp_path, {"PARLEY_GATEWAY_TOOLS_CONNECT_TIMEOUT": "60"})
    first = Foreground(parley)
    first.wait_for("running")
    children = descendants(first.process.pid)
    turn = {"model": "hello", "session_id": "kept", "messages": [{"role": "user", "content": "I am Ada."}]}
    httpx.post(f"{parley.url}/v1/chat/completions", json=turn, timeout=60, trust_env=False).raise_for_status()
    first.process.send_signal(signal.SIGINT)
    code, lines = first.end()
    assert code == 0, "\n".join(lines)
    assert answer_in(lines)
    assert lines[-1] == "stopped gateway-1, session_svc, config_svc, model, redis, postgres"
    assert len(children) >= 6
    wait_until_ended(children)

    curl = next(line for line in lines if line.startswith("curl "))
    grpcurl = next(line for line in lines if "grpcurl" in line)
    second = Foreground(parley)
    second.wait_for("running")
    providers = httpx.get(f"{parley.url}/v1/providers", timeout=60, trust_env=False).json()["data"]
    assert [(one["name"], one["models"]) for one in providers] == [
        ("local", ["smollm2-135m-instruct"]),
        ("scripted", ["scripted-tool-caller"]),
    ]
    chat = next(line for line in lines if "chat hello-tools" in line)
    shown = subprocess.run(["sh", "-c", chat], capture_output=True, text=True, timeout=120, check=False)
    assert shown.stdout == "The tool add returned: 42\n", shown.stderr + parley.logs()
    assert shown.stderr.startswith('[calls add({"a": 17, "b": 25})]\n[add: ok, ')
    kept = json.loads(parley.succeed("sessions", "show", "kept", "--json"))
    assert kept["messages"][0]["content"] == "I am Ada."
    for pasted in (curl, grpcurl):
        done = subprocess.run(["sh", "-c", pasted], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "content" in done.stdout
    children = descendants(second.process.pid)
    second.process.send_signal(signal.SIGTERM)
    assert second.end()[0] == 0
    wait_until_ended(children)
