"""parley-client as a distribution: it builds, from its own source, too, and needs nothing but what it declares."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "clients" / "python"


def build(kind: str, source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("parley_client-*.*")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", SOURCE, tmp_path_factory.mktemp("wheel"))


def declared() -> list[str]:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    return [Requirement(line).name for line in project["dependencies"]]


def needed(names: list[str]) -> set[str]:
    """The distributions that these lead to, without extras."""
    found: set[str] = set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            lines = map(Requirement, distribution(name).requires or ())
            names += [one.name for one in lines if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.slow
def test_the_wheel_needs_what_it_declares_and_nothing_else(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path)
    for name in needed(declared()):
        for file in distribution(name).files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), tmp_path / file)
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import parley_client
with parley_client.Client("127.0.0.1:1") as client:
    assert not client.is_serving()
    client.chat, client.runtime
print(parley_client.__file__, len({{name.partition(".")[0] for name in sys.modules}} & {{"servicekit", "pydantic"}}))
"""
    command = [sys.executable, "-I", "-S", "-c", code]  # no site-packages: what is not copied is not there
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "parley_client" / "__init__.py"), "0"]


@pytest.mark.slow
def test_the_wheel_has_all_stubs_and_their_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info" not in name}
    libs = ROOT / "libs"
    files = [file for package in ("parley", "parley_client") for file in (libs / package).rglob("*") if file.is_file()]
    assert names == {str(file.relative_to(libs)) for file in files if "__pycache__" not in file.parts}


@pytest.mark.slow
def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", SOURCE, tmp_path)) as opened:
        opened.extractall(tmp_path, filter="data")
    (source,) = [folder for folder in tmp_path.iterdir() if folder.is_dir()]
    assert build("wheel", source, tmp_path / "again").read_bytes() == wheel.read_bytes()


def test_its_version_is_that_of_parley() -> None:
    projects = [tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (ROOT, SOURCE)]
    assert len({(one["version"], one["requires-python"], one["license"]) for one in projects}) == 1
    assert set(declared()) <= set(projects[0]["dependencies"])
