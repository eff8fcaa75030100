"""What the build does to installed packages: packages.py trim SITE | sbom SITE SERVICE VERSION | compile SITE SERVICE.

Runs inside the build on the bare Python of the base image, so it imports the standard library only.
"""

import importlib
import json
import re
import shutil
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

from elf import strip_all

# Sources of what is compiled already, debugging aids for browsers, and tests: no import reaches them.
UNUSED_FILES = ("*.pyx", "*.pxd", "*.pxi", "*.c", "*.cc", "*.h", "*.hpp", "*.pyi", "*.map")
UNUSED_FOLDERS = ("tests", "bin")
FAKER_LOCALES = re.compile(r"/faker/providers/.*/[a-z]{2,3}_[A-Z][A-Za-z]{1,3}(_[A-Z]{2})?$")
"""Litestar depends on Faker for invented examples, which Parley's API documents have none of: 13 MB."""
ENTRY_POINTS = {
    "config_svc": ("config_svc.wiring", "config_svc.postgres.migrate"),
    "session_svc": ("session_svc.wiring",),
    "chat_gateway": ("chat_gateway.wiring",),
    "model": ("parley_cli.embedded.model_server",),
}
HEALTHCHECK = "servicekit.healthcheck"


def trim(site: Path) -> None:
    """Remove what no service can use."""
    for pattern in UNUSED_FILES:
        for file in site.rglob(pattern):
            file.unlink()
    for folder in sorted(path for path in site.rglob("*") if path.is_dir()):
        if folder.name in UNUSED_FOLDERS or (FAKER_LOCALES.search(str(folder)) and folder.name != "en_US"):
            shutil.rmtree(folder, ignore_errors=True)
    strip_all(site)


def _component(package: Distribution) -> dict[str, object]:
    name, version = package.metadata["Name"], package.version
    component: dict[str, object] = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
    }
    if license_id := package.metadata.get("License-Expression"):
        component["licenses"] = [{"expression": license_id}]
    return component


def sbom(site: Path, service: str, version: str) -> None:
    """Print a CycloneDX 1.6 document of the interpreter and every installed package."""
    python = sys.version.split()[0]
    interpreter = {"type": "platform", "bom-ref": f"python@{python}", "name": "CPython", "version": python}
    packages = sorted(distributions(path=[str(site)]), key=lambda package: package.metadata["Name"].lower())
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": f"parley-{service}", "name": service, "version": version}
        },
        "components": [interpreter, *map(_component, packages)],
    }
    print(json.dumps(document, indent=2))


def compile_imported(site: Path, service: str) -> None:
    """Import the service once: what a start needs has its byte code then, and a missing package fails the build."""
    sys.path.insert(0, str(site))
    sys.dont_write_bytecode = False
    for module in ENTRY_POINTS[service]:
        importlib.import_module(module)
    if service != "model":
        importlib.import_module(HEALTHCHECK)


def main(command: str, site: str, *arguments: str) -> None:
    """Do one of the three."""
    {"trim": trim, "sbom": sbom, "compile": compile_imported}[command](Path(site), *arguments)


main(*sys.argv[1:])
