"""Asks an advisory service for known vulnerabilities of every locked package: audit.py.

Exit code 0: all were looked up, and none has any; 1: some have, and are printed; 2: not all could be looked up, and
stderr says which.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = "pip-audit==2.10.1"
FOLDER = Path(".cache/audit")
SERVICES = ("pypi", "osv")
TIMEOUT_SECONDS = 300


def auditor() -> list[str]:
    """Returns the audit program's command, in an environment of its own: it shares no package with what it judges."""
    python = FOLDER / "bin" / "python"
    if not (FOLDER / "bin" / "pip-audit").exists():
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
        quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
        subprocess.run([str(python), "-m", "pip", "install", *quiet, PROGRAM], check=False)
    return [str(python), "-m", "pip_audit"]


def ask(command: list[str], service: str) -> list[dict[str, Any]]:
    """Returns what one service knows, package by package; nothing where it does not answer, after saying so."""
    what = ("--requirement", "constraints.txt", "--require-hashes", "--disable-pip", "--progress-spinner", "off")
    try:
        done = subprocess.run(
            [*command, *what, "--format", "json", "--vulnerability-service", service],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        return found
    except subprocess.TimeoutExpired:
        words = f"no answer within {TIMEOUT_SECONDS} s"
    except (ValueError, KeyError):
        words = (done.stderr.strip().splitlines() or ["no answer"])[-1][:200]
    print(f"{service}: {words}", file=sys.stderr)
    return []


def report(service: str, packages: list[dict[str, Any]]) -> int:
    """Prints what was found; returns the exit code. A package that the service does not know was not looked up."""
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    looked_up = [package for package in packages if "skip_reason" not in package]
    bad = [package for package in looked_up if package["vulns"]]
    for package in bad:
        for advisory in package["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no release yet"
            print(f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    print(f"{service}: {len(looked_up)} of {len(packages)} packages looked up, {len(bad)} with known vulnerabilities")
    if bad:
        return 1
    if unknown:
        print(f"NOT AUDITED, {service} does not know them: {', '.join(unknown)}", file=sys.stderr)
        return 2
    return 0


def main() -> int:
    """Asks one service after the other, until one knows any package."""
    command = auditor()
    for service in SERVICES:
        packages = ask(command, service)
        if all("skip_reason" in package for package in packages):
            if packages:
                print(
                    f"{service}: knows none of {len(packages)} packages (a mirror without advisories?)", file=sys.stderr
                )
            continue
        return report(service, packages)
    print("NOT AUDITED: no source of advisories is reachable from here, so nothing is known", file=sys.stderr)
    return 2


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[1])
    sys.exit(main())
