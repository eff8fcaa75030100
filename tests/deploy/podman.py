"""Podman, where this machine has one that can run a pod."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

COMMAND_SECONDS = 300


class Podman:
    """Runs the objects of an overlay as `podman play kube` does; everything it made is gone when it is closed."""

    def __init__(self, folder: Path) -> None:
        # Podman gives containers higher limits than it has, which only a process with CAP_SYS_RESOURCE may.
        config = folder / "containers.conf"
        config.write_text('[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n')
        self._env = os.environ | {"CONTAINERS_CONF": str(config)}
        self._objects = folder / "objects.yaml"

    def missing(self) -> str | None:
        """Return why no pod can be run here, or None."""
        if shutil.which("podman") is None:
            return "there is no podman here"
        tried = self._try("pod", "create", "--name", "parley-probe")
        ran = self._try("pod", "start", "parley-probe") if tried.returncode == 0 else tried
        self._try("pod", "rm", "--force", "parley-probe")
        return None if ran.returncode == 0 else f"podman can't run a pod: {ran.stderr.strip().splitlines()[-1]}"

    def run(self, *arguments: str) -> str:
        """Run one command; fails the test with its last words."""
        done = self._try(*arguments)
        assert done.returncode == 0, f"podman {arguments[0]}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
        return done.stdout

    def load(self, docker: str, images: Sequence[str]) -> None:
        """Take images over from the Docker engine."""
        with subprocess.Popen([docker, "save", *images], stdout=subprocess.PIPE) as saved:
            loaded = subprocess.run(
                ["podman", "load"], stdin=saved.stdout, env=self._env, capture_output=True, timeout=COMMAND_SECONDS
            )
        assert loaded.returncode == 0, loaded.stderr

    def play(self, objects: str) -> None:
        """Run the objects."""
        self._objects.write_text(objects)
        self.run("play", "kube", str(self._objects))

    def close(self, images: Sequence[str]) -> None:
        """Remove what `play` made, with its data, and the images."""
        if self._objects.exists():
            self._try("play", "kube", "--down", str(self._objects))
            for found in yaml.safe_load_all(self._objects.read_text()):
                if found["kind"] == "PersistentVolumeClaim":
                    self._try("volume", "rm", "--force", found["metadata"]["name"])
        self._try("rmi", "--force", *images)

    def _try(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["podman", *arguments]
        return subprocess.run(
            command, env=self._env, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
