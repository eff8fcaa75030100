"""Clients and frameworks over the Responses API, unmodified: functions, a hand-over, chains, conversations, streams."""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from tests.clients.conftest import HERE, Run
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

FOLDER = HERE / "frameworks"
LOOK_UP = Behaviour(text="", tool_calls=(("call_2", "look_up", '{"number": 7}'),), finish_reason="tool_calls")
HAND_OVER = Behaviour(text="", tool_calls=(("call_1", "transfer_to_second", "{}"),), finish_reason="tool_calls")


@pytest.mark.parametrize(
    ("program", "steps"),
    [
        ("responses_agents_sdk.py", [HAND_OVER, LOOK_UP]),
        ("responses_langchain.py", [LOOK_UP]),
        ("responses_openai.mjs", [LOOK_UP]),
    ],
)
def test_the_responses_api(
    program: str,
    steps: list[Behaviour],
    request: pytest.FixtureRequest,
    parley_system: System,
    run: Run,
    tmp_path: Path,
) -> None:
    parley_system.model.reset()
    agent = f"a-{uuid4().hex[:8]}"
    parley_system.create_agent(agent)
    if program.endswith(".mjs"):
        request.getfixturevalue("node_programs")
        command: Path | str = "node"
    else:
        command = request.getfixturevalue("python_programs") / "python"
    parley_system.model.script(*[*steps, Behaviour(text="found it")] * 2)
    said = run(command, FOLDER / program, f"{parley_system.http_url}/v1", agent, "whole", "stream", cwd=tmp_path)
    assert json.loads(said.splitlines()[-1]) == ["found it", "found it"]
    for prompt in parley_system.model.prompts[len(steps) :: len(steps) + 1]:
        results = [message["content"] for message in prompt if message["role"] == "tool"]
        assert results[-1] == "found 7"
        assert [message["content"] for message in prompt if message["role"] == "user"] == ["count"]
