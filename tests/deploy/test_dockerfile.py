"""Holds without an engine: the Dockerfile is clean, and there is one image for each folder in services/."""

import os
import re
import subprocess
import sys

import pytest

from tests.deploy.engine import ROOT, SERVICES, build_script
from tests.deploy.tools import program

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_hadolint_finds_nothing() -> None:
    asked = subprocess.run(
        [program("hadolint"), "--no-color", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (asked.returncode, asked.stdout) == (0, "")


def test_every_service_has_an_image() -> None:
    folders = {path.name for path in (ROOT / "services").iterdir() if (path / "__main__.py").exists()}
    assert folders == set(SERVICES)
    assert set(build_script().IMAGES) == folders | {"model"}
    stages = re.findall(r"^FROM .* AS run-(\w+)$", DOCKERFILE, re.MULTILINE)
    assert set(stages) == set(build_script().IMAGES)


def test_base_images_are_arguments() -> None:
    stages = set(re.findall(r" AS (\S+)$", DOCKERFILE, re.MULTILINE))
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert {base for base in bases if base not in stages and "SERVICE" not in base} == {"${PYTHON_IMAGE}", "scratch"}


@pytest.mark.parametrize(
    ("image", "known", "expected"),
    [
        ("python:3.11-slim", '["python@sha256:ab"]', "python@sha256:ab"),
        ("host:5000/a/python:3", '["python@sha256:cd","host:5000/a/python@sha256:ab"]', "host:5000/a/python@sha256:ab"),
        ("python:3.11-slim", "[]", "python:3.11-slim"),
        ("python:3.11-slim", "null", "python:3.11-slim"),
        ("python@sha256:ab", "", "python@sha256:ab"),
    ],
)
def test_the_base_is_built_on_by_its_digest(
    image: str, known: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = build_script()
    monkeypatch.setattr(script, "docker", lambda *arguments: known)
    assert script.pinned(image) == expected


def test_no_file_names_a_package_index() -> None:
    found = [ROOT / "Dockerfile", *(ROOT / "deploy").rglob("*")]
    files = [file for file in found if file.is_file() and "__pycache__" not in file.parts]
    named = re.compile(r"--(extra-)?index-url|--trusted-host|/simple\b")
    assert [str(file) for file in files if named.search(file.read_text())] == []


def test_what_needs_an_engine_is_named_where_there_is_none() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-n",
        "1",
        "tests/deploy/test_containers.py",
    ]
    env = os.environ | {"DOCKER": "/bin/false"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    _, _, named = done.stdout.partition("not run on this machine")
    for test in re.findall(r"^def (test_\w+)", (ROOT / "tests/deploy/test_containers.py").read_text(), re.MULTILINE):
        assert f"::{test}: no Docker engine answers" in named
