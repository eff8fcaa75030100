"""docs/grpc.md: its programs in Node.js do what it says, as they stand there."""

from pathlib import Path
from uuid import uuid4

from tests.clients.conftest import HERE, Run
from tests.servers.guides import programs
from tests.servers.system import System


def test_the_programs_in_node(guarded_system: System, node_programs: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(node_programs.parent)
    (tmp_path / "protos").symlink_to(HERE.parents[1] / "protos")
    agent, session = f"guide-{uuid4().hex[:8]}", f"guide-{uuid4().hex[:8]}"
    guarded_system.create_agent(agent)
    expected = [
        "echo:2:Hello 1\necho:4:Hello again (FINISH_REASON_STOP)\n",
        "true AGENT_NOT_FOUND nobody\n",
    ]
    found = programs("grpc.md", "Node.js", "js", guarded_system, support=agent, node=session)
    for number, (program, said) in enumerate(zip(found, expected, strict=True)):
        file = tmp_path / f"guide{number}.mjs"
        file.write_text(program)
        assert run("node", file, cwd=tmp_path, env={"PARLEY_API_KEY": guarded_system.operator_key}) == said
