"""A template that another package ships: installed from examples/, chatted with, renewed, and gone."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.processes import ServiceProcess
from tests.servers.system import OpenSystem, System

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "parley-second-opinion"
AGENT = "reviewer"
TEMPLATE = "second-opinion"


def installed(source: Path, target: Path) -> dict[str, str]:
    """Installs a package into a folder of its own; returns the environment that finds it there."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    command = [sys.executable, "-m", "pip", "install", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {"PYTHONPATH": str(target)}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The example as it is, and its next version, which takes one parameter more."""
    folder = tmp_path_factory.mktemp("plugins")
    first, second = folder / "first", folder / "second"
    for copy in (first, second):
        shutil.copytree(EXAMPLE, copy)
    code = second / "src" / "parley_second_opinion" / "__init__.py"
    text = code.read_text().replace('version = "1.0.0"', 'version = "1.1.0"')
    text, changes = re.subn(r'"properties": \{\n', '"properties": {"tone": {"type": "string", "default": "x"},\n', text)
    assert changes == 1
    code.write_text(text)
    return first, second


@pytest.fixture(scope="module")
def system(
    open_system: OpenSystem, tmp_path_factory: pytest.TempPathFactory, sources: tuple[Path, Path]
) -> Iterator[System]:
    """Three gateways: with the plug-in, with its next version, and without."""
    with open_system("system", gateways=0) as started:
        for number, source in enumerate((*sources, None)):
            env = installed(source, tmp_path_factory.mktemp(f"site{number}")) if source is not None else {}
            gateway = started.new_gateway(env)
            if number == 0:
                gateway.start()
                assert newest(started) == "1.0.0"
                started.create_agent(AGENT, template_id=TEMPLATE, instructions="Help {{who}}.", metadata_keys=["who"])
            else:
                gateway.start()
        yield started


def newest(system: System) -> str:
    with system.client() as client:
        found = {one["id"]: one for one in client.get("/v1/templates").json()["data"]}
    version: str = found[TEMPLATE]["version"]
    return version


def test_a_plugin_answers_turns(system: System) -> None:
    system.model.reset()
    answer = system.chat(AGENT, "hi", session_id="s1", metadata={"who": "Ada"})
    assert answer.status_code == 200, answer.text
    draft, review = system.model.prompts
    assert [message["role"] for message in draft] == ["system", "user"]
    assert draft[0]["content"] == "Help Ada."
    assert [message["role"] for message in review] == ["system", "user", "assistant", "user"]
    assert review[3]["content"].startswith("Read your draft again. Is it correct, complete and short? Then")
    assert answer.json()["choices"][0]["message"]["content"].startswith("echo:4:Read your draft")
    with system.client() as client:
        stored = client.get("/v1/sessions/s1/messages").json()["data"]
    assert [message["role"] for message in stored] == ["user", "assistant"], "the draft is nobody's"


def test_an_agent_keeps_working_when_its_template_gets_a_new_version(system: System) -> None:
    assert newest(system) == "1.1.0"
    with system.client() as client:
        kept = client.get(f"/v1/agents/{AGENT}").json()
        assert kept["template_version"] == "1.0.0"
        changed = client.patch(f"/v1/agents/{AGENT}", json={"name": "Renamed"}).json()
        assert changed["template_version"] == "1.0.0"
        fresh = system.create_agent("fresh", template_id=TEMPLATE)
        assert fresh["template_version"] == "1.1.0"
    for gateway in (0, 1):
        for agent in (AGENT, "fresh"):
            answer = system.chat(agent, "hi", gateway=gateway, metadata={"who": "Ada"})
            assert answer.status_code == 200, (gateway, agent, answer.text)


def test_a_template_in_use_does_not_vanish_with_its_package(system: System) -> None:
    refused = system.chat(AGENT, "hi", gateway=2, metadata={"who": "Ada"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "template_not_buildable")
    system.gateways[0].stop()
    system.gateways[1].stop()
    with system.client(2) as client:
        assert TEMPLATE in [one["id"] for one in client.get("/v1/templates").json()["data"]]
        changed = client.patch(f"/v1/agents/{AGENT}", json={"parameters": {"criteria": "Is it kind?"}})
        assert (changed.status_code, changed.json()["template_version"]) == (200, "1.0.0")
        wrong = client.patch(f"/v1/agents/{AGENT}", json={"parameters": {"criteria": ""}})
        assert wrong.json()["error"]["param"] == "parameters.criteria", "its schema is still known"


def test_a_broken_plugin_stops_the_start(system: System, tmp_path: Path) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[parley.templates]\nbroken = no_such_module:Template\n")
    settings = {"PYTHONPATH": str(tmp_path), "PARLEY_PROVIDERS": json.dumps({})}
    gateway = ServiceProcess("chat_gateway", settings, logs=tmp_path)
    gateway.launch()
    deadline = time.monotonic() + 60
    while gateway.running:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    last = gateway.log.read_text().strip().splitlines()[-1]
    assert "template 'broken' of broken (no_such_module:Template) can't be loaded: ModuleNotFoundError" in last
