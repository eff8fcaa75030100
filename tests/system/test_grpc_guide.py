"""docs/grpc.md: its programs in Python and its commands of grpcurl do what it says, as they stand there."""

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.servers.guides import programs
from tests.servers.system import System

ROOT = Path(__file__).resolve().parents[2]


def test_the_programs_in_python(
    guarded_system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PARLEY_API_KEY", guarded_system.operator_key)
    names = {"support": f"guide-{uuid4().hex[:8]}", "demo": f"guide-{uuid4().hex[:8]}"}
    expected = [
        ["echo:2:My name is Ada. 1"],
        ["echo:4:What is my name?", "2 4"],
        ["echo:6:And how are you?", "My name is Ada.", "echo:2:My name is Ada.", "What is my name?"],
        ["AGENT_NOT_FOUND nobody", "['session_id', 'user_id']"],
    ]
    found = programs("grpc.md", "Python", "python", guarded_system, **names)
    assert len(found) == len(expected)
    for program, said in zip(found, expected, strict=True):
        exec(compile(program, "docs/grpc.md", "exec"), {"__name__": "guide"})
        assert capsys.readouterr().out.splitlines()[: len(said)] == said


def test_the_commands_of_grpcurl(guarded_system: System) -> None:
    agent, session = f"guide-{uuid4().hex[:8]}", f"guide-{uuid4().hex[:8]}"
    guarded_system.create_agent(agent)
    (script,) = programs("grpc.md", "grpcurl", "sh", guarded_system, support=agent, curl=session)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PARLEY_API_KEY": guarded_system.operator_key,
    }
    done = subprocess.run(
        ["sh", "-e", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "rpc Complete ( .parley.chat.v1.CompleteRequest )" in done.stdout
    assert '"finish_reason": "FINISH_REASON_STOP"' in done.stdout
    assert '"content": "echo:2:Hello"' in done.stdout


def test_the_contracts_without_reflection(guarded_system: System) -> None:
    protos = ("-import-path", "protos", "-proto", "parley/chat/v1/chat_service.proto")
    command = [str(Path(sys.executable).with_name("grpcurl")), *protos, "list", "parley.chat.v1.ChatService"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "parley.chat.v1.ChatService.StreamComplete" in done.stdout.split()
    assert json.loads((ROOT / "protos/service_config/gateway.json").read_text())["methodConfig"]
