"""Clients that are generated from the OpenAPI document, against the real system with authentication required."""

import json
import shutil
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.clients.conftest import HERE, Run
from tests.servers.system import System

GENERATOR = {
    "post_hooks": [],
    "package_name_override": "parley_generated",
    "project_name_override": "parley_generated",
    # Lines of JSON are a text to it, as they are to HTTP.
    "content_type_overrides": {"application/x-ndjson": "text/plain"},
}


@pytest.fixture(scope="module")
def document(guarded_system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("document") / "openapi.json"
    file.write_bytes(httpx.get(f"{guarded_system.http_url}/docs/openapi.json", timeout=60, trust_env=False).content)
    return file


def test_python(guarded_system: System, document: Path, python_programs: Path, run: Run, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(GENERATOR))
    said = run(
        python_programs / "openapi-python-client",
        *("generate", "--path", document, "--config", settings, "--meta", "none", "--fail-on-warning"),
        cwd=tmp_path,
        env={"PATH": f"{python_programs}:/usr/bin:/bin"},
    )
    assert "WARNING" not in said
    agent = f"generated-{uuid4().hex[:8]}"
    arguments = (guarded_system.http_url, guarded_system.operator_key, agent)
    program = HERE / "generated_python.py"
    said = run(python_programs / "python", program, *arguments, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert said == "done\n"


def test_typescript(guarded_system: System, document: Path, node_programs: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(node_programs.parent)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(HERE / "generated_typescript.ts", tmp_path)
    run(node_programs / "openapi-typescript", document, "--output", "schema.d.ts", cwd=tmp_path)
    strict = ("--strict", "--noUncheckedIndexedAccess", "--target", "es2022", "--module", "nodenext")
    run(node_programs / "tsc", *strict, "--skipLibCheck", "generated_typescript.ts", cwd=tmp_path)
    agent = f"generated-{uuid4().hex[:8]}"
    arguments = (guarded_system.http_url, guarded_system.operator_key, agent)
    assert run("node", "generated_typescript.js", *arguments, cwd=tmp_path) == "done\n"
