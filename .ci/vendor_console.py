"""Fetches the libraries of the console's page from npm: vendor_console.py [--check].

Each is pinned here, with the SHA-256 of the file as its package has it. What is added to a file is an export, or the
path of another of these files, since the page has no bundler. `--check` compares what is there without the network.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "services/chat_gateway/http_edge/console/static/vendor"
LIST = FOLDER.parents[1] / "vendored.json"
LICENCES = FOLDER.parents[1] / "LICENSES.txt"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a package."""

    package: str
    version: str
    path: str
    name: str
    sha256: str
    replace: tuple[str, str] = ("", "")
    append: str = ""

    def vendored(self, source: bytes) -> bytes:
        """Returns the file as the page loads it. Raises ValueError where the source is not the pinned one."""
        found = hashlib.sha256(source).hexdigest()
        if found != self.sha256:
            raise ValueError(f"{self.package}/{self.path}: SHA-256 is {found}, not {self.sha256}")
        text = source.decode()
        lines = [line for line in text.splitlines() if not line.startswith("//# sourceMappingURL")]
        return ("\n".join(lines).replace(*self.replace) + "\n" + self.append).encode()


FILES = (
    File(
        "preact",
        "11.2.0",
        "dist/preact.mjs",
        "preact.js",
        "bdcbd9abdf2c77c5c45326eab42191e949222d479d0d5f69467387a77040cb55",
    ),
    File(
        "preact",
        "11.2.0",
        "hooks/dist/hooks.mjs",
        "hooks.js",
        "e862ab2973aa6455eaa0f77c5d832d2157d6be59a17c8ba546550a575b58c6b4",
        replace=('from"preact"', 'from"./preact.js"'),
    ),
    File(
        "htm",
        "3.1.1",
        "dist/htm.module.js",
        "htm.js",
        "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4",
    ),
    File(
        "uplot",
        "1.6.32",
        "dist/uPlot.iife.min.js",
        "uplot.js",
        "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
        append="export default uPlot;\n",
    ),
)


def fetch() -> None:
    """Writes the files, the licences and the list of them."""
    licences: dict[str, str] = {}
    listed = []
    with tempfile.TemporaryDirectory() as scratch:
        for package, version in dict.fromkeys((file.package, file.version) for file in FILES):
            command = ["npm", "pack", f"{package}@{version}", "--silent", "--pack-destination", scratch]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=120)
            with tarfile.open(Path(scratch) / f"{package}-{version}.tgz") as archive:
                licences[f"{package} {version}"] = _read(archive, "LICENSE").decode()
                for file in FILES:
                    if file.package == package:
                        content = file.vendored(_read(archive, file.path))
                        (FOLDER / file.name).write_bytes(content)
                        listed.append(_entry(file, content))
    LIST.write_text(json.dumps(listed, indent=1) + "\n")
    texts = [f"{name}\n{'=' * len(name)}\n\n{text.strip()}\n" for name, text in licences.items()]
    LICENCES.write_text("\n\n".join(texts))


def problems() -> list[str]:
    """Returns what differs from the list and the pins."""
    listed = {entry["file"]: entry for entry in json.loads(LIST.read_text())}
    found = [f"{file.name} is not listed as it is pinned" for file in FILES if not _listed(file, listed)]
    for name, entry in listed.items():
        if hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() != entry["sha256"]:
            found.append(f"{name} is not what was vendored")
    return found + [f"{path.name} is not listed" for path in FOLDER.iterdir() if path.name not in listed]


def _read(archive: tarfile.TarFile, path: str) -> bytes:
    member = archive.extractfile(f"package/{path}")
    if member is None:
        raise ValueError(f"{path} is no file")
    return member.read()


def _entry(file: File, content: bytes) -> dict[str, str]:
    return {
        "file": file.name,
        "package": file.package,
        "version": file.version,
        "path": file.path,
        "source_sha256": file.sha256,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _listed(file: File, listed: dict[str, dict[str, str]]) -> bool:
    entry = listed.get(file.name, {})
    return (entry.get("version"), entry.get("source_sha256")) == (file.version, file.sha256)


def main() -> int:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        fetch()
    found = problems()
    print("\n".join(found), file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
