"""Agent frameworks, unmodified: they send their whole transcript again with every request, with a session and without.

Each runs two questions in one conversation, the first of them over thirty rounds of a tool. What the model is sent must
be the conversation, each message of it once; and with a session that must be what is stored.
"""

import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.clients.conftest import HERE, Run
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

ROUNDS = 30
PYTHON = ("langchain_agent.py", "pydantic_ai_agent.py", "openai_agents_sdk.py", "litellm_loop.py")
NODE = ("openai_run_tools.mjs", "vercel_ai_sdk.mjs")
FOLDER = HERE / "frameworks"


@pytest.fixture
def command(request: pytest.FixtureRequest) -> tuple[Path | str, Path]:
    """What runs a framework's program."""
    program: str = request.param
    if program in NODE:
        request.getfixturevalue("node_programs")
        return "node", FOLDER / program
    return request.getfixturevalue("python_programs") / "python", FOLDER / program


def script(system: System, times: int) -> None:
    """Has the model look up thirty numbers, one after the other, and answer both questions; so many times."""
    calls = [(f"call_{number}", "look_up", json.dumps({"number": number})) for number in range(ROUNDS)]
    rounds = [Behaviour(text="", tool_calls=(call,), reasoning="a number") for call in calls]
    ends = [Behaviour(text=text, reasoning="so much") for text in ("thirty", "done")]
    system.model.script(*[*rounds, *ends] * times)


def outline(messages: list[dict[str, Any]]) -> list[str]:
    """Returns who says what, as far as it counts here."""
    found = []
    for message in messages:
        calls = [json.loads(call["function"]["arguments"])["number"] for call in message.get("tool_calls") or []]
        content = message.get("content") or ""
        text = content if isinstance(content, str) else "".join(part["text"] for part in content)
        found.append(f"{message['role']} {calls or text}".strip())
    return found


def conversation() -> list[str]:
    """Returns the outline of all that is said before the second answer."""
    rounds = [line for n in range(ROUNDS) for line in (f"assistant [{n}]", f"tool found {n}")]
    return ["system You are a test.", "user count", *rounds, "assistant thirty", "user and now?"]


@pytest.mark.parametrize("command", [*PYTHON, *NODE], indirect=True)
def test_thirty_rounds_of_a_tool(
    command: tuple[Path | str, Path], parley_system: System, run: Run, tmp_path: Path
) -> None:
    parley_system.model.reset()
    agent, sessions = f"a-{uuid4().hex[:8]}", [f"s-{uuid4().hex}" for _ in range(2)]
    parley_system.create_agent(agent, memory={"max_messages": 1000})
    runs = [f"whole:{sessions[0]}", f"stream:{sessions[1]}", "whole:", "stream:"]
    script(parley_system, len(runs))
    said = run(*command, f"{parley_system.http_url}/v1", agent, *runs, cwd=tmp_path)
    assert [json.loads(line) for line in said.splitlines() if line.startswith("[")] == [["thirty", "done"]] * len(runs)
    prompts = [outline(prompt) for prompt in parley_system.model.prompts]
    whole = conversation()
    expected = [whole[:length] for length in (*range(2, len(whole) - 1, 2), len(whole))]
    assert prompts == expected * len(runs)
    with parley_system.client() as client:
        for session in sessions:
            stored = client.get(f"/v1/sessions/{session}/messages", params={"page_size": 1000}).json()["data"]
            assert outline(stored) == [*whole[1:], "assistant done"]


def test_the_readme_as_it_is_written(parley_system: System, python_programs: Path, run: Run, tmp_path: Path) -> None:
    parley_system.model.reset()
    parley_system.create_agent("support")
    section = (HERE.parents[1] / "README.md").read_text("utf-8").partition("## From an agent framework")[2]
    programs = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    assert len(programs) == 3
    for program in programs:
        assert len(program.splitlines()) == 3
        session = re.findall(r'"X-Session-ID": "([a-z-]+)"', program)[0]
        program = program.replace("http://127.0.0.1:8080", parley_system.http_url)
        run(python_programs / "python", "-c", program, cwd=tmp_path, env={"OPENAI_AGENTS_DISABLE_TRACING": "1"})
        with parley_system.client() as client:
            stored = client.get(f"/v1/sessions/{session}/messages").json()["data"]
        assert [message["role"] for message in stored] == ["user", "assistant"]
