"""What `make images` makes: small, without rights, with nothing in it that its service does not need."""

import json
import re
import subprocess
import tarfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.engine import ROOT, SERVICES, Containers, build_script, docker, inspect

MAX_BYTES = 150_000_000
EXTRAS = {
    "config_svc": ("config", "oidc", "traces"),
    "session_svc": ("session", "oidc", "traces"),
    "chat_gateway": ("gateway", "tools", "a2a", "oidc", "traces"),
}
SHELLS_AND_INSTALLERS = {
    "sh",
    "bash",
    "dash",
    "busybox",
    "ash",
    "pip",
    "pip3",
    "apt",
    "apt-get",
    "dpkg",
    "perl",
    "curl",
}
LOOK_INSIDE = """
import importlib.metadata, importlib.util, json, os, ssl, sys, zoneinfo
def writable(path):
    try:
        open(os.path.join(path, "probe"), "w").close()
    except OSError:
        return False
    return True
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(),
    "packages": sorted(d.metadata["Name"] for d in importlib.metadata.distributions()),
    "code": [n for n in CODE if importlib.util.find_spec(n)],
    "installer": importlib.util.find_spec("pip") is not None,
    "writable": [p for p in ("/", "/tmp", "/usr/local/lib", "/home/parley") if writable(p)],
    "authorities": len(ssl.create_default_context().get_ca_certs()),
    "zone": str(zoneinfo.ZoneInfo("Etc/UTC")),
}))
"""

pytestmark = pytest.mark.parametrize("service", SERVICES)


def look_inside(containers: Containers, image: str) -> dict[str, Any]:
    script = f"CODE = {sorted(folders('libs') | folders('services') | folders('cli'))}{LOOK_INSIDE}"
    command = ("run", "--rm", *Containers.HARDENED, "--entrypoint", "python", image, "-c", script)
    seen: dict[str, Any] = json.loads(docker(*command))
    return seen


def folders(name: str) -> set[str]:
    return {path.parent.name for path in (ROOT / name).glob("*/__init__.py")}


def needed(service: str) -> set[str]:
    """Names of all packages that the service's extras lead to, by what the packages themselves declare."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(text) for text in _wanted(project, service)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), extra)
            if key in seen:
                continue
            seen.add(key)
            for text in distribution(requirement.name).requires or []:
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    waiting.append(further)
    return {name for name, _ in seen}


def _wanted(project: dict[str, Any], service: str) -> Iterable[str]:
    of_extras = [project["optional-dependencies"][extra] for extra in EXTRAS[service]]
    return [*project["dependencies"], *chain.from_iterable(of_extras)]


def test_an_image_is_small(images: dict[str, str], service: str) -> None:
    assert inspect(images[service])["Size"] < MAX_BYTES


def test_an_image_says_what_it_is(images: dict[str, str], service: str) -> None:
    config = inspect(images[service])["Config"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == build_script().IMAGES[service].name
    assert labels["org.opencontainers.image.version"] == build_script().version()
    assert labels["org.opencontainers.image.revision"] == "under test"
    assert labels["org.opencontainers.image.description"]
    assert labels["org.opencontainers.image.base.name"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["python", "-m", service]
    assert config["Healthcheck"]["Test"][:4] == ["CMD", "python", "-m", "servicekit.healthcheck"]


def test_an_image_has_its_own_packages_and_code_only(
    images: dict[str, str], service: str, containers: Containers
) -> None:
    seen = look_inside(containers, images[service])
    assert {canonicalize_name(name) for name in seen["packages"]} == needed(service)
    assert set(seen["code"]) == {service} | folders("libs") - {"parley_client"}  # which is for callers
    assert (seen["uid"], seen["gid"]) == (65532, 65532)
    assert seen["writable"] == []
    assert seen["installer"] is False
    assert seen["authorities"] > 0, "calls to providers need trusted authorities"
    assert seen["zone"] == "Etc/UTC"


def test_an_image_has_no_shell_and_nothing_that_raises_rights(
    images: dict[str, str], service: str, tmp_path: Path
) -> None:
    container = docker("create", images[service])
    try:
        docker("export", "--output", str(tmp_path / "files.tar"), container)
    finally:
        docker("rm", container)
    with tarfile.open(tmp_path / "files.tar") as files:
        members = files.getmembers()
    programs = {Path(m.name).name for m in members if (m.isfile() or m.issym()) and m.mode & 0o111}
    assert not programs & SHELLS_AND_INSTALLERS
    assert [m.name for m in members if m.isfile() and m.mode & 0o6000] == []
    outside = [m.name for m in members if m.isfile() and m.mode & 0o002]
    assert outside == [], "nobody but root may change these"


def test_the_list_of_contents_is_true(images: dict[str, str], service: str, containers: Containers) -> None:
    document = json.loads((ROOT / "build" / "sbom" / f"{service}.cdx.json").read_text())
    script = "print(open('/usr/share/sbom/parley.cdx.json').read())"
    inside = docker("run", "--rm", "--entrypoint", "python", images[service], "-c", script)
    assert json.loads(inside) == document
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    locked = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text().lower(), re.MULTILINE)
    exact = {canonicalize_name(name): version for name, version in locked}
    libraries = [part for part in document["components"] if part["type"] == "library"]
    assert {canonicalize_name(part["name"]) for part in libraries} == needed(service)
    for part in libraries:
        name = canonicalize_name(part["name"])
        assert part["version"].lower() == exact[name]
        assert part["purl"] == f"pkg:pypi/{name}@{part['version']}"


def test_the_health_check_of_an_image_fails_when_nothing_serves(images: dict[str, str], service: str) -> None:
    check = inspect(images[service])["Config"]["Healthcheck"]["Test"][1:]
    client = build_script().docker_client()
    command = [client, "run", "--rm", "--entrypoint", check[0], images[service], *check[1:]]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert asked.returncode == 1
    assert "UNAVAILABLE" in asked.stderr
