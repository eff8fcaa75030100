"""Generates the Python stubs of every proto into libs/parley, and the service configs of clients, or checks both.

python protos/generate.py           write libs/parley and protos/service_config
python protos/generate.py --check   exit 1 and name the files that differ
"""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
STUBS = PROTOS.parent / "libs"
CONFIGS = "service_config"
# In a process of its own, which imports the stubs that were just made.
WRITE_CONFIGS = """
import json, pathlib, sys
from parley_client.channels import SERVICES, service_config
for server in SERVICES:
    pathlib.Path(sys.argv[1], f"{server}.json").write_text(json.dumps(service_config(server), indent=2) + "\\n")
"""


def generate(target: Path) -> None:
    """Writes the stubs, their type hints and package markers below `target`."""
    sources = sorted(str(p.relative_to(PROTOS)) for p in PROTOS.rglob("*.proto"))
    # The mypy plugins are programs beside this interpreter; protoc looks for them on the path.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    well_known = files("grpc_tools") / "_proto"
    outputs = [f"--{p}_out={target}" for p in ("python", "grpc_python")]
    outputs += [f"--{p}_out=quiet:{target}" for p in ("mypy", "mypy_grpc")]
    code = protoc.main(["protoc", f"-I{PROTOS}", f"-I{well_known}", *outputs, *sources])
    if code:
        raise SystemExit(f"protoc failed with exit code {code}")
    package = target / "parley"
    for folder in [package, *(d for d in package.rglob("*") if d.is_dir())]:
        (folder / "__init__.py").write_text("")
    (package / "py.typed").write_text("")
    configs = target / CONFIGS
    configs.mkdir()
    paths = os.pathsep.join([str(target), str(STUBS)])
    command = [sys.executable, "-c", WRITE_CONFIGS, str(configs)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=True, timeout=60)


def differing(fresh: Path, committed: Path) -> list[str]:
    """Names the files that are in one tree only, or not the same in both."""
    names = {p.relative_to(root) for root in (fresh, committed) for p in root.rglob("*") if p.is_file()}
    kept = sorted(n for n in names if "__pycache__" not in n.parts)
    return [str(n) for n in kept if not _same(fresh / n, committed / n)]


def _same(a: Path, b: Path) -> bool:
    return a.exists() and b.exists() and filecmp.cmp(a, b, shallow=False)


def main() -> None:
    """Generates, or checks with --check."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        kept = {Path(scratch, "parley"): STUBS / "parley", Path(scratch, CONFIGS): PROTOS / CONFIGS}
        if "--check" in sys.argv:
            stale = [name for fresh, committed in kept.items() for name in differing(fresh, committed)]
            if stale:
                raise SystemExit("stubs are not current, run `make gen`: " + ", ".join(stale))
            return
        for fresh, committed in kept.items():
            shutil.rmtree(committed, ignore_errors=True)
            shutil.copytree(fresh, committed)


if __name__ == "__main__":
    main()
